"""What `tessera` takes on its command line. Nothing heavy is imported here, so that a wrong call is told at once."""
