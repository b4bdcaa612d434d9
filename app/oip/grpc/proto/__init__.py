"""The `.proto` files, as data."""
