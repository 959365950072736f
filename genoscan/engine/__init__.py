"""How sensitivity is computed: tile by tile, exactly, for any causal layer."""
