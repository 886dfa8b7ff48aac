"""Verifies an access token as a Python service would: with PyJWT, and the keys that the identity service
publishes. Fails unless the token is good and altered ones are not.

Usage: verify.py JWKS_URI ALGORITHM USER_ID TOKEN
"""

import base64
import json
import sys

import jwt


def verify(keys, algorithm, token):
    return jwt.decode(
        token,
        keys.get_signing_key_from_jwt(token),
        algorithms=[algorithm],
        audience="identity",
        issuer="identity",
        options={"require": ["exp", "iat", "sub"]},
    )


def encode(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def alterations(token, claims):
    header, body, signature = token.split(".")
    later = encode(claims | {"exp": claims["exp"] + 1})
    nothing = encode(jwt.get_unverified_header(token) | {"alg": "none"})
    return {
        "another expiry": f"{header}.{later}.{signature}",
        "another signature": f"{header}.{body}.{'A' * len(signature)}",
        "no signature": f"{header}.{body}.",
        "the algorithm 'none'": f"{nothing}.{body}.",
    }


def main(uri, algorithm, user, token):
    keys = jwt.PyJWKClient(uri)
    claims = verify(keys, algorithm, token)
    assert claims["sub"] == user, claims
    assert jwt.get_unverified_header(token)["typ"] == "at+jwt"
    for what, altered in alterations(token, claims).items():
        try:
            verify(keys, algorithm, altered)
        except jwt.InvalidTokenError:
            continue
        raise AssertionError(f"a token with {what} is accepted")
    print(f"ok: Python verifies {algorithm}")


if __name__ == "__main__":
    main(*sys.argv[1:])
