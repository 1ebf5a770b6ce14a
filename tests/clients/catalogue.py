"""The clients that are run: which packages, which program, how many steps it takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROGRAMS = HERE / "programs"


@dataclass(frozen=True)
class Environment:
    """Packages of one client, installed aside of everything else.

    `kind` is python or typescript. `packages` are requirements of pip, or `name@version` of npm; they are what
    `python -m tests.clients.lock` resolves and writes beside this file, pinned to hashes.
    """

    name: str
    kind: str
    packages: tuple[str, ...]

    @property
    def lock(self) -> Path:
        """The file that pins the packages."""
        if self.kind == "python":
            return HERE / "requirements" / f"requirements-{self.name}.txt"
        return HERE / "npm" / f"integrities-{self.name}.txt"


@dataclass(frozen=True)
class Client:
    """A program in an environment. A program that takes fewer or more than `steps` steps fails: none is lost."""

    environment: Environment
    program: str
    steps: int
    transport: str = "REST"

    @property
    def title(self) -> str:
        """What the closing lines of a run call it."""
        name, _, version = self.environment.name.rpartition("-")
        return f"{name} {version} {self.transport}".rstrip()


def _python(version: str, requirement: str) -> Environment:
    return Environment(f"python-{version}", "python", (f"{requirement}=={version}",))


def _typescript(version: str) -> Environment:
    return Environment(f"typescript-{version}", "typescript", (f"@pinecone-database/pinecone@{version}",))


PYTHON_3 = _python("3.2.2", "pinecone-client")
PYTHON_5 = _python("5.4.2", "pinecone")
PYTHON_7 = _python("7.3.0", "pinecone[asyncio]")
PYTHON_8 = _python("8.1.2", "pinecone[asyncio,grpc]")
PYTHON_9 = _python("9.1.0", "pinecone")
PYTHON_10 = _python("10.2.0", "pinecone")
TYPESCRIPT_5 = _typescript("5.1.2")
TYPESCRIPT_7 = _typescript("7.2.0")
TYPESCRIPT_9 = _typescript("9.0.0")
LANGCHAIN = Environment("langchain-pinecone-0.2.13", "python", ("langchain-pinecone==0.2.13",))
HAYSTACK = Environment("pinecone-haystack-7.0.0", "python", ("pinecone-haystack==7.0.0",))
ENVIRONMENTS = (
    *(PYTHON_3, PYTHON_5, PYTHON_7, PYTHON_8, PYTHON_9, PYTHON_10),
    *(TYPESCRIPT_5, TYPESCRIPT_7, TYPESCRIPT_9),
    *(LANGCHAIN, HAYSTACK),
)

# In every run of the tests: the newest of each language, and the last Python client of the shape before.
NEWEST = (
    Client(PYTHON_10, "python/generation_10.py", 73),
    Client(PYTHON_9, "python/generation_9.py", 74),
    Client(TYPESCRIPT_9, "typescript/generation_9.mjs", 43),
)
GENERATIONS = (
    Client(PYTHON_3, "python/generation_3.py", 53),
    Client(PYTHON_5, "python/generation_5.py", 57),
    Client(PYTHON_7, "python/generation_7.py", 71),
    Client(PYTHON_8, "python/generation_8.py", 75),
    Client(TYPESCRIPT_5, "typescript/generation_5.mjs", 40),
    Client(TYPESCRIPT_7, "typescript/generation_7.mjs", 43),
)
FRAMEWORKS = (
    Client(LANGCHAIN, "frameworks/langchain_store.py", 9, transport=""),
    Client(HAYSTACK, "frameworks/haystack_store.py", 8, transport=""),
)
# Over gRPC without TLS; by name the older generation needs hosts without a scheme. With TLS the same programs, and
# those of REST, where the clients trust the certificate.
GRPC = (
    Client(PYTHON_10, "python/grpc_10.py", 48, "gRPC"),
    Client(PYTHON_8, "python/grpc_8.py", 48, "gRPC"),
)
GRPC_BARE_HOSTS = Client(PYTHON_8, "python/grpc_8.py", 48, "gRPC by name")
TLS = (
    Client(PYTHON_10, "python/grpc_10.py", 48, "gRPC TLS"),
    Client(PYTHON_8, "python/grpc_8.py", 48, "gRPC TLS"),
    Client(PYTHON_10, "python/generation_10.py", 73, "REST TLS"),
    Client(TYPESCRIPT_9, "typescript/generation_9.mjs", 43, "REST TLS"),
)
