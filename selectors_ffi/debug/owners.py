"""Owners: which part of the program a registered descriptor belongs to.

asyncio registers numbers, and a number names no owner. What it does belong to stands in ``key.data``:
handles with the callbacks, and behind those the transport, the protocol and the task that waits.
The same is done for tornado, curio, socketserver, subprocess and for plain data.

Nothing here raises, and no code of the program runs: attributes are read without properties and
``__getattr__``, objects are named by their type and functions by their name, never by ``repr``.
What is read and written is never looked at.
"""

from __future__ import annotations

import enum
import functools
import re
import sys
import types
from inspect import (
    CORO_CREATED,
    GEN_CREATED,
    getattr_static,
    getcoroutinestate,
    getgeneratorstate,
)
from typing import TYPE_CHECKING, Any

from .places import defined_at, is_users, stack_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from selectors import SelectorKey
    from types import FrameType

    from .places import Place

__all__ = ["field", "name_of", "owner_of", "owner_of_handle", "owner_on_stack", "queued_in", "task_of"]

#: An owner is cut at this many characters.
LONGEST = 120

_STREAMS = {0: "stdin", 1: "stdout", 2: "stderr"}
_LABEL = re.compile(r"[\w .:/@#-]{1,40}")
_NAMED = (types.FunctionType, types.BuiltinFunctionType, types.CoroutineType, types.GeneratorType)
_SLOTS = (types.MemberDescriptorType, types.GetSetDescriptorType)


def owner_of(key: SelectorKey) -> str:
    """Return the owner of a registration on one line; the type of its file object if no more is known.

    Examples: ``protocol app.Echo``, ``task 'Task-4' of app.handle``, ``callback app.on_ready``,
    ``http.server.HTTPServer of app.Handler``.
    """
    try:
        text = _of_data(key.data, int(key.fd)) or _of_object(key.fileobj)
    except Exception as error:  # a debugger must not break what it looks at
        text = f"unknown ({type(error).__name__})"
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def owner_on_stack(key: SelectorKey, frame: FrameType | None) -> str:
    """Return the owner that only the stack of the registration knows; "" if there is none.

    ``subprocess`` registers the plain files of a ``Popen``, whose method is on the stack.
    """
    popen = getattr(sys.modules.get("subprocess"), "Popen", None)
    while frame is not None and frame.f_globals.get("__name__") == "subprocess":
        owner = frame.f_locals.get("self") if "self" in frame.f_code.co_varnames else None
        if popen is not None and _is(owner, popen):
            for name in _STREAMS.values():
                if field(owner, name) is key.fileobj:
                    return f"{name} of process {field(owner, 'pid')}"
        frame = frame.f_back
    return ""


def field(thing: object, name: str) -> Any:
    """Return an attribute without running code of the program; None if there is no such attribute."""
    value = getattr_static(thing, name, None)
    if _is(value, _SLOTS):  # of C code and of __slots__
        try:
            return value.__get__(thing, type(thing))
        except AttributeError:  # an empty slot
            return None
    return value


def _is(thing: Any, kind: type[Any] | tuple[type[Any], ...]) -> bool:
    """Tell whether a thing is of a type; ``isinstance`` would ask the thing for its ``__class__``."""
    return issubclass(type(thing), kind)


def name_of(thing: Any) -> str:
    """Return ``module.qualname`` of a function, a type, or of the type of any other object."""
    while _is(thing, functools.partial):
        thing = thing.func
    if _is(thing, types.MethodType):
        function = thing.__func__
        return f"{name_of(thing.__self__)}.{field(function, '__name__') or name_of(function)}"
    own = getattr(thing, "__self__", None) if _is(thing, types.BuiltinMethodType) else None
    if own is not None and not _is(own, types.ModuleType):
        return f"{name_of(own)}.{thing.__name__}"
    named = thing if _is(thing, (type, *_NAMED)) else type(thing)
    name = str(named.__qualname__)
    module = named.__module__ if _is(named, type) else _module_of(named)
    return name if module in ("__main__", "builtins", "") else f"{module}.{name}"


def _module_of(thing: Any) -> str:
    """Return the module of a function or of a coroutine, which remembers it in its frame alone."""
    if _is(thing, (types.FunctionType, types.BuiltinFunctionType)):
        module = thing.__module__
        return module if _is(module, str) else ""
    frame = getattr(thing, "cr_frame", None) or getattr(thing, "gi_frame", None)
    return str(frame.f_globals.get("__name__", "")) if frame is not None else ""


def task_of(future: object) -> str:
    """Return the task that waits for a future of asyncio, directly or through gather(); else ""."""
    for callback in _callbacks(future):
        function = callback[0] if _is(callback, tuple) else callback
        task = _task_stepped(function)
        if task is not None:
            return _of_task(task)
    return ""


def _callbacks(future: object) -> list[Any]:
    found = field(future, "_callbacks")
    return list(found) if _is(found, (list, tuple)) else []


def _is_safe(function: object) -> bool:
    """Tell whether ``__self__`` of a callable is an attribute of the interpreter's own."""
    # The C code of tasks has a callable type of its own for what a future calls.
    return _is(function, (types.MethodType, types.BuiltinMethodType)) or (
        type(function).__module__ in ("_asyncio", "builtins")
    )


def _is_task(thing: object) -> bool:
    tasks = sys.modules.get("asyncio.tasks")
    return tasks is not None and _is(thing, tasks.Task)


def _coroutine_of(task: object) -> Any:
    """Return the coroutine of a task of asyncio, whatever its class makes of ``get_coro``."""
    return sys.modules["asyncio.tasks"].Task.get_coro(task)


def _of_task(task: Any) -> str:
    """Return ``task 'name' of coroutine``; of asyncio or of curio."""
    if _is_task(task):
        name, coroutine = sys.modules["asyncio.tasks"].Task.get_name(task), _coroutine_of(task)
    else:
        name, coroutine = field(task, "id"), field(task, "coro")
    label = f" {name!r}" if type(name) in (str, int) and _LABEL.fullmatch(str(name)) else ""
    return f"task{label} of {name_of(coroutine)}" if coroutine is not None else f"task{label}"


def _of_data(data: Any, fd: int) -> str:
    """Return what the data of a registration name."""
    if _is(data, (tuple, list)):
        found: list[str] = []
        for one in data[:4]:
            text = _of_data(one, fd)
            if text and text not in found:  # reader and writer of one transport
                found.append(text)
        return ", ".join(found)
    if data is None or _is(data, (bytes, bytearray, memoryview)):
        return ""
    if _is(data, enum.Enum):
        return f"{name_of(data)}.{field(data, '_name_')}"
    if _is(data, (int, float)):
        return str(data) if type(data) in (int, float, bool) else name_of(data)
    if _is(data, str):
        return data if type(data) is str and _LABEL.fullmatch(data) else ""
    callback = field(data, "_callback")
    if callback is not None and field(data, "_args") is not None:
        return _of_callback(callback, field(data, "_args"), fd)
    if _is_task(data) or (field(data, "coro") is not None and field(data, "id") is not None):
        return _of_task(data)
    if callable(data) and not _is(data, type):
        return f"callback {name_of(data)}"
    return name_of(data)


def owner_of_handle(handle: object) -> str:
    """Return the owner of a handle of asyncio; "" if it is none."""
    try:
        callback, arguments = field(handle, "_callback"), field(handle, "_args")
        return _of_callback(callback, arguments, -1) if callback is not None else ""
    except Exception:
        return ""


def queued_in(frame: FrameType | None) -> tuple[list[str], Place | None, bool]:
    """Return the owners of what asyncio's loop is about to run, a line in it, and whether it gets on.

    The line is where a task stands, or where a callback is defined. The loop gets on if all of it is
    either what futures call that are done, or the first step of a new task, or a checkpoint of anyio.
    curio's queue does not tell why a task is in it, so that loop is said to get on.

    Args:
        frame: from where to look for the loop.
    """
    while frame is not None and frame.f_globals.get("__name__") != "asyncio.base_events":
        if frame.f_globals.get("__name__") == "curio.kernel":
            return [], None, True
        frame = frame.f_back
    loop = frame.f_locals.get("self") if frame is not None else None
    ready = list(field(loop, "_ready") or ())
    due = [handle for handle in ready if _is_woken(handle) or _begins(handle) or _is_polite(handle)]
    handles = [handle for handle in ready if handle not in due][:3] or due[:3]
    handles = handles or list(field(loop, "_scheduled") or ())[:1]
    where = None
    for handle in handles:
        where = where or _place_of(field(handle, "_callback"), field(handle, "_args"))
    owners = list(dict.fromkeys(filter(None, map(owner_of_handle, handles))))
    return owners, where, 0 < len(ready) == len(due)


def _is_woken(handle: object) -> bool:
    """Tell whether a handle is what a future of asyncio calls when it is done."""
    arguments, futures = field(handle, "_args"), sys.modules.get("asyncio.futures")
    return futures is not None and len(arguments or ()) == 1 and _is(arguments[0], futures.Future)


def _begins(handle: object) -> bool:
    """Tell whether a handle is the first step of a task of asyncio."""
    task = _task_stepped(field(handle, "_callback"))
    if task is None:
        return False
    coroutine = _coroutine_of(task)
    if _is(coroutine, types.CoroutineType):
        return getcoroutinestate(coroutine) == CORO_CREATED
    # Before Python 3.12, what is awaited without being a coroutine is wrapped in a generator.
    return _is(coroutine, types.GeneratorType) and getgeneratorstate(coroutine) == GEN_CREATED


def _is_polite(handle: object) -> bool:
    """Tell whether a task stands in a checkpoint of anyio.

    The queues and locks of anyio let other tasks run in every call, by ``sleep(0)``.
    """
    task = _task_stepped(field(handle, "_callback"))
    if task is None:
        return False
    frames = _frames_of(_coroutine_of(task))
    return any(
        "checkpoint" in frame.f_code.co_name
        and str(frame.f_globals.get("__name__")).startswith("anyio._backends.")
        for frame in frames
    )


def _task_stepped(callback: Any) -> Any:
    """Return the task that a callback goes on with; None for any other callback."""
    task = getattr(callback, "__self__", None) if _is_safe(callback) else None
    return task if _is_task(task) else None


def _place_of(callback: Any, arguments: Any = ()) -> Place | None:
    """Return where a task stands if the callback is its step, else where the callback is defined."""
    while _is(callback, functools.partial):
        callback = callback.func
    task = _task_stepped(callback)
    if task is not None:
        frame = _innermost(_coroutine_of(task))
        return stack_of([frame])[0] if frame is not None else None
    function = callback.__func__ if _is(callback, types.MethodType) else callback
    if not _is(function, types.FunctionType):
        return None
    if function.__name__ == "_run_callback" and arguments:  # tornado's, around the program's
        return _place_of(arguments[0])
    return defined_at(function.__code__)


def _innermost(coroutine: Any) -> FrameType | None:
    """Return the frame in which a suspended coroutine stands, as far as coroutines go."""
    return next(filter(is_users, reversed([*_frames_of(coroutine)])), None)


def _frames_of(coroutine: Any) -> Iterator[FrameType]:
    """Yield the frames of a suspended coroutine, and of what it awaits, as far as coroutines go."""
    while _is(coroutine, types.CoroutineType):
        if coroutine.cr_frame is not None:
            yield coroutine.cr_frame
        coroutine = coroutine.cr_await


def _of_callback(callback: Any, arguments: Any, fd: int) -> str:
    """Return the owner of a handle of asyncio: what the callback is bound to, or who waits."""
    while _is(callback, functools.partial):
        arguments = (*callback.args, *arguments)
        callback = callback.func
    task = _task_stepped(callback)
    if task is not None:
        return _of_task(task)
    bound = callback.__self__ if _is(callback, types.MethodType) else None
    if bound is None:
        return f"callback {name_of(callback)}"
    if field(bound, "_protocol") is not None:
        return _of_transport(bound)
    method = str(field(callback.__func__, "__name__"))
    if method == "_read_from_self":
        return "asyncio's own wake-up"
    if method == "_accept_connection" and arguments:
        return f"server of {_factory(arguments[0])}"
    if method == "_run_callback" and arguments:  # tornado's, around the program's
        return f"callback {name_of(arguments[0])}"
    handlers = field(bound, "handlers")
    if _is(handlers, dict) and fd in handlers:  # tornado's loop on asyncio's
        return _of_tornado(handlers[fd])
    for argument in arguments:
        waiting = task_of(argument)
        if waiting:
            return f"{waiting} ({method.lstrip('_')})"
    return f"callback {name_of(callback)}"


def _of_transport(transport: Any) -> str:
    """Return the protocol of a transport and the task that reads its stream."""
    protocol = field(transport, "_protocol")
    note = ""
    inner = field(protocol, "_app_protocol")
    if inner is not None:  # SSLProtocol stands between the transport and the program's protocol
        protocol, note = inner, " over SSL"
    process = field(protocol, "proc")
    if process is not None:
        return _of_process(protocol, process)
    text = f"protocol {name_of(protocol)}{note}"
    waiting = _reader_of(protocol)
    if waiting and text.startswith("protocol asyncio."):  # only asyncio's own glue
        return waiting + note
    return f"{waiting}, {text}" if waiting else text


def _of_process(protocol: object, process: object) -> str:
    """Return the child process and the stream of it that a pipe of asyncio belongs to."""
    number = field(protocol, "fd")
    stream = _STREAMS.get(number, "pipe") if _is(number, int) else "pipe"
    return f"{stream} of process {field(process, '_pid')}, {_of_transport(process)}"


def _reader_of(protocol: object) -> str:
    """Return the task that a protocol serves: that of a stream, or of aiohttp's request handler."""
    reader = field(protocol, "_stream_reader_wr")
    if _is(reader, types.FunctionType) or reader is None:
        reader = field(protocol, "_stream_reader")
    if callable(reader):  # a weak reference
        reader = reader()
    waiting = task_of(field(reader, "_waiter")) if reader is not None else ""
    if waiting:
        return waiting
    for name in ("_task_handler", "_current_task", "_task"):
        task = field(protocol, name)
        if task is not None and _is_task(task):
            return _of_task(task)
    for name in ("_stream_reader", "_reader", "_waiter"):
        waiting = task_of(field(protocol, name))
        if waiting:
            return waiting
    return ""


def _factory(factory: Any) -> str:
    """Return what makes the protocols of a server: of start_server(), the function given to it."""
    if _is(factory, types.FunctionType) and factory.__closure__:
        cells = dict(zip(factory.__code__.co_freevars, factory.__closure__))
        cell = cells.get("client_connected_cb")
        if cell is not None:
            return name_of(cell.cell_contents)
    return name_of(factory)


def _of_tornado(handler: Any) -> str:
    """Return the owner of an entry of tornado's table, (file object, callback)."""
    callback = handler[1] if _is(handler, tuple) and len(handler) > 1 else handler
    bound = callback.__self__ if _is(callback, types.MethodType) else None
    waiting = task_of(field(bound, "_read_future")) if bound is not None else ""
    text = f"callback {name_of(callback)}"
    return f"{waiting}, {text}" if waiting else text


def _of_object(fileobj: object) -> str:
    """Return what a file object itself names."""
    handler = field(fileobj, "RequestHandlerClass")
    if _is(handler, type):
        return f"{name_of(fileobj)} of {name_of(handler)}"
    return name_of(fileobj)
