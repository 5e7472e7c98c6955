"""What went wrong, said so that the reader can act: a cause, a cure, and the HTTP status that carries them.

Problem
├── Invalid       400  what was asked cannot be done as asked
│   └── TooLarge  413  it has more bytes or pixels than are taken
├── NoToken       401  nobody is known who asks
├── Forbidden     403  whoever asks may not
├── NotFound      404  there is no such thing
├── Taken         409  the name or the port belongs to something else
├── Misdirected   421  it was asked for under a name that is not its own
├── Busy          429  too many ask at this moment
├── Unavailable   503  something this needs is not there at the moment
├── Late          504  it was not done before its deadline
├── Full          507  the disk has no room for it
└── Broken        500  a promise of the product was not kept
"""

from collections.abc import Mapping
from types import MappingProxyType

LONGEST = 4000
"""Signs of a sentence."""


class Problem(Exception):
    """An error with its cure: both are whole sentences, shown as they are to people and programs."""

    status = 500
    headers: Mapping[str, str] = MappingProxyType({})
    """What an HTTP answer says of it beside its body."""

    def __init__(self, cause: str, cure: str) -> None:
        self.cause, self.cure = sayable(cause), sayable(cure)
        super().__init__(f"{self.cause} {self.cure}")

    def as_dict(self) -> dict[str, str]:
        """The body of an HTTP answer. `detail` is the key that FastAPI's clients look for."""
        return {"error": type(self).__name__, "cause": self.cause, "cure": self.cure, "detail": str(self)}


def sayable(text: str) -> str:
    """A sentence may quote what somebody sent: halves of signs, which no answer can hold, and more than anybody reads."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} … {text[-LONGEST // 4 :]}"


class Invalid(Problem):
    status = 400


class TooLarge(Invalid):
    status = 413


class NoToken(Problem):
    status = 401
    headers = MappingProxyType({"WWW-Authenticate": "Bearer"})


class Forbidden(Problem):
    status = 403


class Misdirected(Problem):
    status = 421


class NotFound(Problem):
    status = 404


class Taken(Problem):
    status = 409


class Busy(Problem):
    """`seconds`: after so many it is worth asking again."""

    status = 429

    def __init__(self, cause: str, cure: str, seconds: int = 1) -> None:
        super().__init__(cause, cure)
        self.seconds = seconds
        self.headers = {"Retry-After": str(seconds)}


class Unavailable(Problem):
    status = 503


class Late(Problem):
    status = 504


class Full(Problem):
    status = 507


class Broken(Problem):
    status = 500
