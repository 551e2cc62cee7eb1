"""Typed settings, read from the environment. Every secret can also come from a file (`..._FILE`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

if TYPE_CHECKING:
    from sqlalchemy import URL

_SECRETS = (
    *("database_password", "openai_api_key", "anthropic_api_key", "faults_token"),
    *("active_users_key", "active_users_store_password"),
)


class SettingsError(Exception):
    """The environment is not usable; the message names the variable and the reason, never a secret's value."""


class Settings(BaseSettings):
    """Settings of the service; the environment variable of a field is its name in upper case."""

    model_config = SettingsConfigDict(
        env_ignore_empty=True,  # `OPENAI_API_KEY=` in an .env file means "not set"
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,  # an error message must not print a secret
    )

    app_host: str = "127.0.0.1"
    app_port: int = Field(default=8000, ge=0, le=65535)
    app_workers: int = Field(default=1, ge=1, le=64, description="processes; about one per core")
    app_max_connections: int = Field(
        default=1000, ge=10, description="per worker; further ones get 503, which is not counted"
    )
    app_max_body_bytes: int = Field(
        default=1024 * 1024, ge=1024, description="a larger body of POST /chat gets 413; other routes: limits.py"
    )
    app_sign_ups_per_minute: int = Field(
        default=600, ge=0, description="from one client, per worker; more get 429; 0: no limit"
    )
    app_request_timeout: float = Field(
        default=30, gt=0, description="seconds that a client has to send its headers, then its body"
    )
    app_proxies: str = Field(
        default="", description="names or addresses (a,b) of proxies whose X-Forwarded-For names the client"
    )
    app_drain_seconds: float = Field(
        default=0, ge=0, description="seconds after SIGTERM in which /readyz returns 503 and the service still listens"
    )
    app_shutdown_timeout: int = Field(default=20, ge=0, description="seconds after that for requests to finish")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["plain", "json"] = "plain"

    database_host: str = "127.0.0.1"
    database_port: int = Field(default=5432, ge=1, le=65535)
    database_name: str = "sightline"
    database_user: str = "sightline"
    database_password: SecretStr | None = None
    database_password_file: Path | None = Field(default=None, description="every ..._FILE: a file with the secret")
    database_pool_size: int = Field(default=5, ge=1, le=1000, description="connections that each worker keeps")
    database_max_overflow: int = Field(
        default=5, ge=0, le=1000, description="further connections that it may open temporarily"
    )
    database_pool_timeout: float = Field(default=5, gt=0, description="seconds to wait for a connection from the pool")
    database_wait: float = Field(default=30, ge=0, description="seconds to wait for the database at startup")
    database_statement_timeout: float = Field(default=30, gt=0, description="seconds that one statement may take")

    llm_provider: Literal["auto", "simulated", "openai", "anthropic"] = Field(
        default="auto", description="auto uses the provider whose key is set, else the simulator"
    )
    llm_model: str | None = Field(default=None, description="default: the provider's default model")
    llm_models: str = Field(
        default="", description="further models that clients may request (a,b), beside models with a price"
    )
    openai_api_key: SecretStr | None = None
    openai_api_key_file: Path | None = None
    openai_base_url: str | None = None
    anthropic_api_key: SecretStr | None = None
    anthropic_api_key_file: Path | None = None
    anthropic_base_url: str | None = None

    metrics_token_file: str | None = Field(default=None, description="if set, /metrics requires this bearer token")

    active_users_store: str | None = Field(
        default=None, description="redis://host:port, where several replicas count active users together"
    )
    active_users_key: SecretStr | None = None
    active_users_key_file: Path | None = Field(default=None, description="the same secret on every replica")
    active_users_store_password: SecretStr | None = None
    active_users_store_password_file: Path | None = None

    faults_enabled: bool = Field(default=False, description="drills only: routes that break the service on purpose")
    faults_token: SecretStr | None = None
    faults_token_file: Path | None = None
    faults_dir: Path | None = Field(
        default=None, description="private folder of the fault switches, shared by the workers"
    )
    faults_disk_dir: Path | None = Field(default=None, description="folder for the file of the fault `disk`")

    @model_validator(mode="before")
    @classmethod
    def _read_secret_files(cls, values: dict[str, object]) -> dict[str, object]:
        for name in _SECRETS:
            path = values.get(f"{name}_file")
            if path and not values.get(name):
                values = {**values, name: _read_secret(f"{name}_file".upper(), Path(str(path)))}
        return values

    @model_validator(mode="after")
    def _faults_need_a_token(self) -> Self:
        if self.faults_enabled and self.faults_token is None:
            raise ValueError("FAULTS_ENABLED=true needs FAULTS_TOKEN_FILE: a file with the token for /faults")
        return self

    @model_validator(mode="after")
    def _the_store_needs_a_key(self) -> Self:
        if self.active_users_store and self.active_users_key is None:
            raise ValueError("ACTIVE_USERS_STORE needs ACTIVE_USERS_KEY_FILE: a secret that every replica has")
        return self

    @property
    def database(self) -> dict[str, Any]:
        """The connection parameters of psycopg."""
        return {
            "host": self.database_host,
            "port": self.database_port,
            "dbname": self.database_name,
            "user": self.database_user,
            "password": self.database_password.get_secret_value() if self.database_password else None,
        }

    @property
    def database_url(self) -> URL:
        from sqlalchemy import URL  # here, as `make` reads the names of these settings, and the import is slow

        given = self.database
        return URL.create(
            "postgresql+psycopg",
            username=given["user"],
            password=given["password"],
            host=given["host"],
            port=given["port"],
            database=given["dbname"],
        )


def _read_secret(variable: str, path: Path) -> str:
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SettingsError(f"{variable}: cannot read {path}: {reason}") from error
    if not secret:
        raise SettingsError(f"{variable}: {path} is empty")
    return secret


def load_settings() -> Settings:
    """Read the settings from the environment.

    Raises:
        SettingsError: one line per unusable variable.
    """
    try:
        return Settings()
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_input=False, include_url=False):
            variable = "".join(str(part) for part in problem["loc"]).upper()
            message = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{variable}: {message}" if variable else message)
        raise SettingsError("\n".join(lines)) from None


def describe_settings() -> str:
    """One line per setting: variable, default, meaning."""
    lines = []
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else f"={field.default}"
        lines.append(f"  {name.upper() + default:<36}{field.description or ''}".rstrip())
    return "\n".join(lines)
