"""From a model folder to `.om` files for Ascend: AIPP configuration, ATC and AMCT, the custom operator."""
