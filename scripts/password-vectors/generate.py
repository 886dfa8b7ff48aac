"""Prints password hashes made by other programs. See README.md."""

import json
import pathlib
import subprocess
import warnings

import bcrypt
from passlib.hash import bcrypt as passlib_bcrypt
from passlib.hash import bcrypt_sha256

warnings.simplefilter("ignore")

SALT = "abcdefghijklmnopqrstuu"


def varied(length):
    """ASCII text of which no two parts are alike, so that a cut or a wrap shows."""
    return "".join(chr(33 + (i * 7 + (i * i >> 3)) % 90) for i in range(length))


SHORT = {
    "one byte": "a",
    "ASCII": "correct horse battery staple",
    "two-byte characters": "пароль пароль",
    "four-byte characters": "\U0001f511\U0001f512 \U0001f511",
    "not normalised": "Zoe\u0308 Zo\u00eb",
    "white space": " \t tab and spaces \n",
    "71 bytes": varied(71),
    "72 bytes": varied(72),
}
LONG = {
    "73 bytes": varied(73),
    "72 bytes and half a character": varied(71) + "\u00e9",
    "100 bytes": varied(100),
    "254 bytes": varied(254),
    "255 bytes": varied(255),
    "256 bytes": varied(256),
    "257 bytes": varied(257),
    "300 bytes": varied(300),
    "400 bytes": varied(400),
    "1024 bytes": varied(1024),
}
NUL = {"NUL": "\0", "NUL inside": "a\0b", "NUL and a repetition": "a\0a", "NUL at the end": "ab\0"}

NODE = """
const bcrypt = require("bcrypt");
const jobs = JSON.parse(require("fs").readFileSync(0, "utf8"));
console.log(JSON.stringify(jobs.map(([text, salt]) => bcrypt.hashSync(text, salt))));
"""


def vector(source, scheme, case, password, text):
    return {"source": source, "case": case, "scheme": scheme, "password": password, "hash": text}


def plain():
    for case, password in SHORT.items():
        for prefix, cost in (("2a", 4), ("2b", 4), ("2b", 5), ("2y", 5)):
            text = bcrypt.hashpw(password.encode(), f"$2b${cost:02}${SALT}".encode()).decode()
            yield vector("PyPI bcrypt 4.3.0", "bcrypt", case, password, text.replace("$2b$", f"${prefix}$"))
    text = passlib_bcrypt.using(rounds=4, salt=SALT, ident="2y").hash(SHORT["ASCII"])
    yield vector("passlib 1.7.4", "bcrypt", "ASCII", SHORT["ASCII"], text)


def digested():
    for case, password in (SHORT | LONG | NUL).items():
        for cost in (4, 5) if case in ("ASCII", "73 bytes") else (4,):
            text = bcrypt_sha256.using(rounds=cost, salt=SALT, version=2).hash(password)
            yield vector("passlib 1.7.4", "bcrypt-sha256", case, password, text)


def truncated():
    cases = [
        (case, password, f"${prefix}$04${SALT}")
        for case, password in (SHORT | LONG | NUL).items()
        for prefix in ("2a", "2b")
    ]
    result = subprocess.run(
        ["node", "-e", NODE],
        input=json.dumps([(password, salt) for _, password, salt in cases]),
        capture_output=True,
        check=True,
        text=True,
        cwd=pathlib.Path(__file__).parent,
    )
    for (case, password, _), text in zip(cases, json.loads(result.stdout), strict=True):
        yield vector("npm bcrypt 6.0.0", "bcrypt-truncated", case, password, text)


rows = [*plain(), *digested(), *truncated()]
print("[\n" + ",\n".join("  " + json.dumps(row) for row in rows) + "\n]")
