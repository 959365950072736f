"""Operations on one tile, with their derivatives: scans, a convolution, a norm and a linear map."""
