#!/usr/bin/env python3
"""Hashes random passwords with libxcrypt, whose bcrypt is Openwall's and shares no code with any in Rust.

Writes lines of a password in hex (- when empty) and its hash to standard output: how vectors.txt beside this was
made. Needs Linux with libxcrypt as libcrypt.so.1 (Debian 11 and later, Fedora 28 and later).
"""

import ctypes
import random

LIBRARY = ctypes.CDLL("libcrypt.so.1")
LIBRARY.crypt.restype = ctypes.c_char_p
ALPHABET = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def main() -> None:
    numbers = random.Random(20261124)
    for length in range(0, 90):
        for prefix in ("2a", "2b", "2y"):
            # A NUL ends a C string. Under $2a$, libxcrypt defends against hashes of a faulty
            # implementation, which changes some hashes of passwords with bytes above 127.
            highest = 127 if prefix == "2a" else 255
            password = bytes(numbers.randint(1, highest) for _ in range(length))
            # The last character of a salt stands for four bits that count and two that do not.
            salt = "".join(numbers.choices(ALPHABET, k=21)) + numbers.choice(".Oeu")
            setting = f"${prefix}${numbers.choice((4, 4, 5, 6)):02}${salt}"
            hashed = LIBRARY.crypt(password, setting.encode())
            print(password.hex() or "-", hashed.decode())


main()
