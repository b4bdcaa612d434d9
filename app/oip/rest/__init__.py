"""The Open Inference Protocol v2 under /v2, one file per noun."""

from tessera.app.oip.rest import infer, models, repository, server, unsupported

# Order matters: /v2/models/stats must not be taken for a model of that name.
routers = (server.router, models.router, infer.router, repository.router, unsupported.router)
