"""Settings, each from an environment variable `CALIBRANT_<NAME>`."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="CALIBRANT_", frozen=True)

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    networks: Path = Field(
        Path("networks"),
        description="Folder of the released networks, `<model>/<version>`; the highest version of each is served.",
    )
    max_body_bytes: int = Field(4 * 1024 * 1024, ge=1, description="Largest request body; a larger one gets 413.")
    log_level: Literal["critical", "error", "warning", "info", "debug"] = Field(
        "info", description="Least level logged."
    )
