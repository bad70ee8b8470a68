"""The one door to Flower (`flwr`): sets it up quietly, then hands on the few names that are used.

Flower's gRPC transport carries our bytes; its strategies, its arrays and its command line are not used. Before it is
imported, its telemetry and its look-up of newer versions are switched off, and the folder that it writes to is a temporary
one. Importing this module raises ConfigError where Flower is not installed.
"""

import atexit
import logging
import os
import shutil
import tempfile

from distill.errors import ConfigError

_QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "GRPC_VERBOSITY": "NONE"}

os.environ.update({name: value for name, value in _QUIET.items() if name not in os.environ})
if "FLWR_HOME" not in os.environ:
    os.environ["FLWR_HOME"] = tempfile.mkdtemp(prefix="flwr-")
    atexit.register(shutil.rmtree, os.environ["FLWR_HOME"], ignore_errors=True)

try:
    from flwr.client import Client, start_client
    from flwr.common import (
        Code,
        FitIns,
        FitRes,
        GetPropertiesIns,
        GetPropertiesRes,
        Parameters,
        ReconnectIns,
        Status,
    )
    from flwr.server import Server, ServerConfig, SimpleClientManager, start_server
    from flwr.server.client_proxy import ClientProxy
    from flwr.server.history import History
    from flwr.server.superlink.fleet.grpc_bidi.grpc_bridge import GrpcBridgeClosed
    from grpc import RpcError
except ModuleNotFoundError as error:
    raise ConfigError(
        f"Flower is not installed ({error.name} is missing). Install it with: pip install 'distill[flower]'."
    ) from None

for _name in ("flwr", "grpc"):  # whoever leaves would be reported with a traceback
    logging.getLogger(_name).setLevel(logging.CRITICAL)

__all__ = [
    "Client",
    "ClientProxy",
    "Code",
    "FitIns",
    "FitRes",
    "GetPropertiesIns",
    "GetPropertiesRes",
    "GrpcBridgeClosed",
    "History",
    "Parameters",
    "ReconnectIns",
    "RpcError",
    "Server",
    "ServerConfig",
    "SimpleClientManager",
    "Status",
    "start_client",
    "start_server",
]
