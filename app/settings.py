"""Every setting of the service, in one class: flags, environment `TESSERA_*` and a TOML file use the same names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from tessera.app.config_file import ConfigFile
from tessera.app.platform_port import PlatformPort
from tessera.app.routing.guard import smallest_recovery_window
from tessera.app.routing.split import parse_split
from tessera.models.preprocessing.image_size import Size, parse_sizes

Backend = Literal["auto", "cpu", "ascend"]
LogLevel = Literal["debug", "info", "warning", "error"]
GuardRecovery = Literal["manual", "automatic"]
LogFormat = Literal["text", "json"]


class Settings(BaseSettings):
    """Settings of the service.

    Precedence: command line flag (or constructor argument), then environment variable, then the TOML file that
    `config` names, then for `port` the platform's `PORT`, then default. Setting `max_batch` is `--max-batch` on the
    command line, `TESSERA_MAX_BATCH` in the environment and `max_batch` in the file. Secrets have no flag: every user
    of a machine can read command lines.
    """

    model_config = SettingsConfigDict(env_prefix="TESSERA_", extra="forbid", frozen=True, protected_namespaces=())

    config: Path | None = Field(
        default=None, description="TOML file with settings, under the names that the environment has without TESSERA_"
    )
    host: str = Field(
        default="127.0.0.1", min_length=1, description="address to listen on; 0.0.0.0 for every interface"
    )
    port: int = Field(
        default=8000, ge=0, le=65535, description="TCP port to listen on; 0 lets the system choose a free one"
    )
    grpc_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="TCP port for the Open Inference Protocol over gRPC, 0 for a free one; default: no gRPC",
    )
    model_path: Path | None = Field(
        default=None,
        description="model folder, model file, or a name that `tessera models list` shows; default: the bundled one",
    )
    size: str | None = Field(
        default=None,
        description="height and width of the network's images in pixels, 288 or 224x320, where its file leaves them "
        "open; several with commas between, the usual one first; default: what the model's folder says",
    )
    models: Path | None = Field(
        default=None,
        description="folder of model folders (or one model folder); with several inside, `model_path` names one",
    )
    model_name: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="name that the model is served under; default: its own",
    )
    cache_dir: Path | None = Field(
        default=None, description="where built models are kept; default: tessera in XDG_CACHE_HOME or ~/.cache"
    )
    backend: Backend = Field(
        default="auto",
        description="what the variants run on: cpu, ascend, or auto: Ascend where the model is converted for it and "
        "the machine has one, else the CPU, where ONNX Runtime runs what it is quicker at than our engine",
    )
    default_variant: str = Field(
        default="optimised", min_length=1, description="variant that answers requests without an X-Model-Variant header"
    )
    split: str | None = Field(
        default=None,
        description="weights of the variants that share requests without an X-Model-Variant header, such as "
        "optimised=90,baseline=10; default: all go to default_variant",
    )
    split_salt: str = Field(
        default="", description="name of the experiment; another name assigns keys to variants anew"
    )
    shadow_share: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="share of requests whose images the other variant runs too, when the service is idle; "
        "default: 0, or 0.1 with guard_agreement",
    )
    guard_agreement: float | None = Field(
        default=None,
        ge=0.5,
        le=0.9999,
        description="least agreement of optimised with baseline; shown to be under it, traffic moves to baseline",
    )
    guard_window: int = Field(
        default=1000, ge=20, le=100_000, description="how many of the last compared images the guard judges by"
    )
    guard_recovery: GuardRecovery = Field(
        default="manual",
        description="how a tripped guard ends: manual (reset or restart) or automatic (agreement shown to be back)",
    )
    frontends: int = Field(
        default=0,
        ge=0,
        le=64,
        description="HTTP processes in front of one engine process; 0 keeps everything in a single process",
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
    page: bool = Field(default=True, description="answer GET / with a page to try the service in a browser")
    cors_origins: str | None = Field(
        default=None,
        min_length=1,
        description="origins, comma-separated, whose web pages may call this service from a browser; * for any",
    )
    max_pixels: int = Field(
        default=64 * 1024 * 1024,
        ge=1,
        le=178_956_970,  # where Pillow's own guard refuses, whatever we say
        description="most pixels an image's header may declare; past it 413, before decoding",
    )
    decode_scale: bool = Field(
        default=True, description="decode large JPEGs at a half, a quarter or an eighth, at least twice what is wanted"
    )
    request_timeout_ms: int = Field(
        default=30_000,
        ge=1,
        description="a request not answered after this many milliseconds gets 503 (408 while uploading)",
    )
    max_upload_bytes: int = Field(
        default=256 * 1024 * 1024,
        ge=1,
        description="most bytes of request bodies held at once, over all requests; past it requests get 503",
    )
    max_connections: int = Field(
        default=1024,
        ge=1,
        le=1_000_000,
        description="most open connections; past it they give way to one another, or get 503",
    )
    client_timeout_seconds: float = Field(
        default=10.0,
        gt=0,
        le=3600,
        description="longest wait for a client to complete its headers, to read on, or to send a body at 1 kB/s",
    )
    keep_alive_seconds: int = Field(
        default=75, ge=1, le=86_400, description="a connection without a request is closed after so many seconds"
    )
    rate_limit: float | None = Field(
        default=None, gt=0, le=1e6, description="requests per second that one client may send; past it 429"
    )
    rate_burst: int = Field(
        default=20, ge=1, le=1_000_000, description="requests that a client may send at once, with rate_limit"
    )
    trusted_proxies: str | None = Field(
        default=None,
        min_length=1,
        description="addresses or networks, comma-separated, whose X-Forwarded-For names the client",
    )
    admin: bool = Field(default=False, description="answer the verbs that load and unload models; needs a token")
    admin_host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="answer admin verbs only on connections made to this address; 0.0.0.0 for any",
    )
    admin_token: SecretStr | None = Field(
        default=None, description="what a client of the admin verbs sends as bearer token; there is no flag"
    )
    admin_token_file: Path | None = Field(default=None, description="file that holds the admin token")
    drain_seconds: float = Field(
        default=30.0, ge=0, le=3600, description="longest wait for requests in flight after SIGTERM, in seconds"
    )
    lame_duck_seconds: float = Field(
        default=0.0,
        ge=0,
        le=3600,
        description="after SIGTERM, readiness is off but new requests are still answered for so many seconds",
    )
    stuck_seconds: float = Field(
        default=60.0,
        gt=0,
        le=86_400,
        description="liveness turns red when a batch runs, or a request is past its timeout, for so many seconds",
    )
    otlp_endpoint: str | None = Field(
        default=None,
        min_length=1,
        description="URL that takes traces as OTLP over HTTP, such as http://127.0.0.1:4318/v1/traces",
    )
    log_format: LogFormat = Field(default="text", description="text (key=value) or json, one line per event")
    log_level: LogLevel = Field(
        default="info", description="least severe log lines to write; info has one line per request"
    )

    @model_validator(mode="after")
    def _largest_request_fits(self) -> Settings:
        if self.max_images_per_request > self.max_queue_images:
            raise ValueError(
                f"max_images_per_request ({self.max_images_per_request}) is larger than max_queue_images "
                f"({self.max_queue_images}): a request of that size could never be admitted"
            )
        if self.max_body_bytes > self.max_upload_bytes:
            raise ValueError(
                f"max_body_bytes ({self.max_body_bytes}) is larger than max_upload_bytes ({self.max_upload_bytes}): "
                "a request of that size could never be admitted"
            )
        return self

    @field_validator("split")
    @classmethod
    def _split_can_be_read(cls, split: str | None) -> str | None:
        if split is not None:
            parse_split(split)
        return split

    @field_validator("size", mode="before")
    @classmethod
    def _size_is_one(cls, size: object) -> object:
        text = str(size) if type(size) is int else size  # a number in the file
        if isinstance(text, str):
            parse_sizes(text)
        return text

    @property
    def image_sizes(self) -> tuple[Size, ...]:
        """Heights and widths of images that `size` asks for; one number where they are equal."""
        return () if self.size is None else parse_sizes(self.size)

    @field_validator("cors_origins")
    @classmethod
    def _origins_are_origins(cls, origins: str | None) -> str | None:
        for origin in _listed(origins):
            if origin != "*" and re.fullmatch(r"https?://[^/?#\s]+", origin) is None:
                raise ValueError(f"{origin!r} is no origin; one is like https://example.org or http://localhost:3000")
        return origins

    @property
    def allowed_origins(self) -> list[str]:
        """The origins of `cors_origins`, one by one."""
        return _listed(self.cors_origins)

    @model_validator(mode="after")
    def _guard_can_judge(self) -> Settings:
        if self.guard_agreement is None:
            return self
        if self.shadow_share == 0:
            raise ValueError("guard_agreement has nothing to judge by while shadow_share is 0")
        smallest = smallest_recovery_window(self.guard_agreement)
        if self.guard_recovery == "automatic" and self.guard_window < smallest:
            raise ValueError(
                f"guard_window ({self.guard_window}) is too short to show an agreement above {self.guard_agreement}; "
                f"automatic recovery needs at least {smallest}"
            )
        return self

    @property
    def effective_shadow_share(self) -> float:
        """The share of requests that are shadowed."""
        if self.shadow_share is not None:
            return self.shadow_share
        return 0.0 if self.guard_agreement is None else 0.1

    @model_validator(mode="after")
    def _admin_has_a_token(self) -> Settings:
        if self.admin and self.admin_token is None and self.admin_token_file is None:
            raise ValueError("admin needs a token: set TESSERA_ADMIN_TOKEN or admin_token_file")
        if self.admin_token is not None and self.admin_token_file is not None:
            raise ValueError("admin_token and admin_token_file are both set; keep one")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags over environment over file over the platform."""
        return init_settings, env_settings, ConfigFile(settings_cls), PlatformPort(settings_cls)


def _listed(text: str | None) -> list[str]:
    return [] if text is None else [entry.strip() for entry in text.split(",") if entry.strip()]
