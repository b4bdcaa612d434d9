"""Our service against LitServe, mosec, BentoML and Ray Serve around OpenVINO int8; see docs/serving.md."""
