"""What goes into `op_impl/ai_core/tbe/tessera_impl` of the operator package."""
