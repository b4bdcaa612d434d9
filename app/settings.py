"""Every setting of the service, in one class: environment `TESSERA_*`, command line flags of the same names."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

Backend = Literal["auto", "cpu", "ascend"]
LogLevel = Literal["debug", "info", "warning", "error"]


class Settings(BaseSettings):
    """Settings of the service.

    Precedence: command line flag (or constructor argument), then environment variable, then default. Setting
    `max_batch` is `--max-batch` on the command line and `TESSERA_MAX_BATCH` in the environment.
    """

    model_config = SettingsConfigDict(env_prefix="TESSERA_", extra="forbid", frozen=True, protected_namespaces=())

    host: str = Field(
        default="127.0.0.1", min_length=1, description="address to listen on; 0.0.0.0 for every interface"
    )
    port: int = Field(
        default=8000, ge=0, le=65535, description="TCP port to listen on; 0 lets the system choose a free one"
    )
    model_path: Path | None = Field(
        default=None, description="model folder, or the name of one inside `models`; default: the bundled model"
    )
    models: Path | None = Field(
        default=None,
        description="folder of model folders (or one model folder); with several inside, `model_path` names one",
    )
    cache_dir: Path | None = Field(
        default=None, description="where built models are kept; default: tessera in XDG_CACHE_HOME or ~/.cache"
    )
    backend: Backend = Field(
        default="auto",
        description="what the variants run on: cpu, ascend, or auto: Ascend where the model is converted for it and "
        "the machine has one",
    )
    default_variant: str = Field(
        default="optimised", min_length=1, description="variant that answers requests without an X-Model-Variant header"
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="engine threads; default: CPU affinity or cgroup quota, whichever is less",
    )
    decode_threads: int | None = Field(
        default=None, ge=1, le=256, description="image decoding threads; default: half of the CPU budget, at least 2"
    )
    max_batch: int = Field(default=16, ge=1, le=16, description="most images in one batch")
    max_queue_images: int = Field(
        default=128, ge=1, le=65536, description="most images admitted and not yet in a batch; past it requests get 503"
    )
    max_images_per_request: int = Field(default=64, ge=1, le=4096, description="most images in one multipart request")
    max_body_bytes: int = Field(
        default=16 * 1024 * 1024, ge=1, description="largest request body, in bytes; past it 413"
    )
    max_pixels: int = Field(
        default=64 * 1024 * 1024,
        ge=1,
        le=178_956_970,  # where Pillow's own guard refuses, whatever we say
        description="most pixels an image's header may declare; past it 413, before decoding",
    )
    request_timeout_ms: int = Field(
        default=30_000,
        ge=1,
        description="a request not answered after this many milliseconds gets 504 (408 while uploading)",
    )
    drain_seconds: float = Field(
        default=30.0, ge=0, le=3600, description="longest wait for requests in flight after SIGTERM, in seconds"
    )
    log_level: LogLevel = Field(
        default="info", description="least severe log lines to write; info has one line per request"
    )

    @model_validator(mode="after")
    def _largest_request_fits_the_queue(self) -> Settings:
        if self.max_images_per_request > self.max_queue_images:
            raise ValueError(
                f"max_images_per_request ({self.max_images_per_request}) is larger than max_queue_images "
                f"({self.max_queue_images}): a request of that size could never be admitted"
            )
        return self
