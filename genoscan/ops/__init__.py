"""Operations on one tile, and their derivatives: scans, a convolution, a norm and a linear map."""
