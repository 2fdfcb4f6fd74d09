"""One epoll, a few timers, and signals that arrive like any other input."""

# pathlib and contextlib would load half a megabyte:
# ruff: noqa: SIM105

# `signal` would load `enum`, a third of what this process needs in all; the C module underneath is part of every CPython.
import _signal  # type: ignore[import-not-found] # no stubs
import os
import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SIGHUP, SIGINT, SIGKILL, SIGPIPE, SIGTERM, SIGCHLD = 1, 2, 9, 13, 15, int(_signal.SIGCHLD)

READ = select.EPOLLIN
WRITE = select.EPOLLOUT


def say(message: str) -> None:
    """Write one line to standard error, for the journal or the person in front of it."""
    try:
        os.write(2, f"edgewise supervisor: {message}\n".encode(errors="replace"))
    except OSError:
        pass  # nobody listens any more; the work goes on


class Timer:
    """A call to come. `at` is monotonic."""

    __slots__ = ("at", "call")

    def __init__(self, at: float, call: "Callable[[], None]") -> None:
        self.at = at
        self.call = call


class Loop:
    """Calls what was asked for when a descriptor is ready, a time has come or a signal arrived."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._calls: dict[int, Callable[[int], None]] = {}
        self._timers: list[Timer] = []
        self._signals: dict[int, Callable[[], None]] = {}
        self._running = True
        self._wake_reader, self._wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        _signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        self.watch(self._wake_reader, self._signalled)

    def watch(self, descriptor: int, call: "Callable[[int], None]", events: int = READ) -> None:
        """Call `call(events)` whenever `descriptor` is ready."""
        self._calls[descriptor] = call
        self._poll.register(descriptor, events)

    def change(self, descriptor: int, events: int) -> None:
        """Wait for other events on a watched descriptor."""
        self._poll.modify(descriptor, events)

    def unwatch(self, descriptor: int) -> None:
        """Forget a descriptor; before it is closed."""
        if self._calls.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def later(self, seconds: float, call: "Callable[[], None]") -> Timer:
        """Call `call()` once, after `seconds`."""
        timer = Timer(time.monotonic() + seconds, call)
        self._timers.append(timer)
        return timer

    def cancel(self, timer: "Timer | None") -> None:
        """Forget a timer. No error when it is over."""
        if timer in self._timers:
            self._timers.remove(timer)

    def on_signal(self, number: int, call: "Callable[[], None]") -> None:
        """Call `call()` after signal `number`."""
        self._signals[number] = call
        _signal.signal(number, _ignore)

    def stop(self) -> None:
        """Let `run` return."""
        self._running = False

    def run(self) -> None:
        """Work until `stop`."""
        while self._running:
            for descriptor, events in self._poll.poll(self._wait()):
                call = self._calls.get(descriptor)
                if call is not None:
                    self._guard(call, events)
            now = time.monotonic()
            due = [timer for timer in self._timers if timer.at <= now]
            for timer in sorted(due, key=_at):
                if timer in self._timers:
                    self._timers.remove(timer)
                    self._guard(timer.call)

    def _wait(self) -> float:
        if not self._timers:
            return -1
        return max(0.0, min(timer.at for timer in self._timers) - time.monotonic())

    def _signalled(self, _events: int) -> None:
        try:
            numbers = os.read(self._wake_reader, 256)
        except BlockingIOError:
            return
        for number in set(numbers):
            call = self._signals.get(number)
            if call is not None:
                call()

    def _guard(self, call: "Callable[..., None]", *arguments: int) -> None:
        # A mistake in the handling of one request must not end every workload on the device.
        try:
            call(*arguments)
        except Exception as error:  # noqa: BLE001 -- see above
            import traceback

            place = traceback.extract_tb(error.__traceback__)[-1]
            say(f"mistake: {type(error).__name__}: {error} at {place.filename}:{place.lineno}")


def _at(timer: Timer) -> float:
    return timer.at


def _ignore(_number: int, _frame: object) -> None:
    """Do nothing: the wake-up descriptor has told the loop."""


def block_signals() -> object:
    """Hold every signal back from this thread. Returns what `restore_signals` wants."""
    before: object = _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
    return before


def restore_signals(before: object) -> None:
    """Undo `block_signals`."""
    _signal.pthread_sigmask(_signal.SIG_SETMASK, before)


def default_signals() -> None:
    """Give a forked child the signals it would have had without us. To be called with signals blocked."""
    _signal.set_wakeup_fd(-1)
    for number in (SIGHUP, SIGINT, SIGTERM, SIGCHLD, SIGPIPE, int(_signal.SIGXFSZ)):
        _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
