// Verifies an access token as Go services would: with golang-jwt and with go-jose, and the keys that the identity
// service publishes. Fails unless the token is good and altered ones are not.
//
// Usage: verify JWKS_URI ALGORITHM USER_ID TOKEN
package main

import (
	"encoding/base64"
	"fmt"
	"os"
	"strings"
)

// A verifier returns the user that a token is about, or why the token is refused.
type verifier func(token string) (user string, err error)

func main() {
	uri, algorithm, user, token := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	check("golang-jwt", golangJWT(uri, algorithm), user, token)
	check("go-jose", goJose(uri, algorithm), user, token)
	fmt.Printf("ok: Go verifies %s, with golang-jwt and with go-jose\n", algorithm)
}

func check(library string, verify verifier, user, token string) {
	subject, err := verify(token)
	if err != nil {
		fail("%s refuses the token: %v", library, err)
	}
	if subject != user {
		fail("with %s, the token is about %s, not %s", library, subject, user)
	}
	for what, altered := range alterations(token) {
		if _, err := verify(altered); err == nil {
			fail("%s accepts a token with %s", library, what)
		}
	}
}

func alterations(token string) map[string]string {
	parts := strings.Split(token, ".")
	header, claims, signature := parts[0], parts[1], parts[2]
	bytes, err := base64.RawURLEncoding.DecodeString(claims)
	if err != nil {
		fail("the claims are not base64url: %v", err)
	}
	raised := strings.Replace(string(bytes), `"exp":1`, `"exp":2`, 1)
	if raised == string(bytes) {
		fail("no time of expiry in %s", bytes)
	}
	encode := base64.RawURLEncoding.EncodeToString
	return map[string]string{
		"another expiry":       header + "." + encode([]byte(raised)) + "." + signature,
		"another signature":    header + "." + claims + "." + strings.Repeat("A", len(signature)),
		"no signature":         header + "." + claims + ".",
		"the algorithm 'none'": encode([]byte(`{"alg":"none","typ":"at+jwt"}`)) + "." + claims + ".",
	}
}

func fail(format string, values ...any) {
	fmt.Fprintf(os.Stderr, "verify: "+format+"\n", values...)
	os.Exit(1)
}
