"""Operations on one tile, with their derivatives: scans, convolution, norm, linear map."""
