"""Log lines for machines: one JSON object each, with the fields that the line for people shows as `name=value`.

The code logs constant phrases with fields, `log.info("submitted job=%s attempt=%d", ...)`, so both come from one call.
"""

from __future__ import annotations

import json
import logging
import re
import time

_PLACEHOLDER = re.compile(r"%%|(?:(\w+)=)?%[-+ #0]*\d*(?:\.\d+)?[a-zA-Z]")


class JsonLines(logging.Formatter):
    """`at` in UTC, `level`, `event` (the phrase), then the fields in their order."""

    def format(self, record: logging.LogRecord) -> str:
        at = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"
        event, fields = parts(record)
        line = {"at": at, "level": record.levelname, "event": event, **fields}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def parts(record: logging.LogRecord) -> tuple[str, dict[str, object]]:
    """The phrase without its fields, and the fields; numbers stay numbers."""
    template, arguments = str(record.msg), record.args
    if not isinstance(arguments, tuple) or not arguments:
        return record.getMessage(), {}
    fields: dict[str, object] = {}
    left = list(arguments)

    def take(found: re.Match[str]) -> str:
        if found.group() == "%%" or not left:
            return found.group()[:1]
        value, name = left.pop(0), found.group(1)
        if name is None:
            return found.group() % (value,)
        fields["with_" + name if name in ("at", "level", "event") else name] = _plain(value)
        return ""

    phrase = _PLACEHOLDER.sub(take, template)
    return re.sub(r"\s+([:;,]|$)", r"\1", " ".join(phrase.split())), fields


def _plain(value: object) -> object:
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
