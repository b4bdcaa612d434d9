"""Any number of photos through one variant: where they come from, how they run, what is written of them."""
