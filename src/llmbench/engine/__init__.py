"""The vLLM process: which adapters it may see, its command line, its start, its end. vLLM itself is never imported here."""

from llmbench.engine.address import Address, Place, client, tls
from llmbench.engine.admission import Adapter, admit, admit_all, admit_variant, base_folder
from llmbench.engine.command import BASE, Capacity, by_priority, capacity, command, onnx_command, places
from llmbench.engine.interpreter import Device, Interpreter, inspect
from llmbench.engine.parsers import parsers
from llmbench.engine.process import Engine, Progress
from llmbench.engine.proof import prove, prove_base, uncertified

__all__ = [
    "BASE",
    "Adapter",
    "Address",
    "Capacity",
    "Device",
    "Engine",
    "Interpreter",
    "Place",
    "Progress",
    "admit",
    "admit_all",
    "admit_variant",
    "base_folder",
    "by_priority",
    "capacity",
    "client",
    "command",
    "inspect",
    "loading",
    "onnx_command",
    "parsers",
    "places",
    "prove",
    "prove_base",
    "remote",
    "store",
    "tls",
    "uncertified",
]
