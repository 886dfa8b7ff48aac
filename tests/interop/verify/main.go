// Verifies an access token as a Go service would: with golang-jwt, and the keys that the identity service
// publishes. Fails unless the token is good and altered ones are not.
//
// Usage: verify JWKS_URI ALGORITHM USER_ID TOKEN
package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"strings"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
)

func main() {
	uri, algorithm, user, token := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	keys, err := jwkset.NewDefaultHTTPClient([]string{uri})
	if err != nil {
		fail("the keys cannot be fetched: %v", err)
	}
	parser := jwt.NewParser(
		jwt.WithValidMethods([]string{algorithm}),
		jwt.WithIssuer("identity"),
		jwt.WithAudience("identity"),
		jwt.WithExpirationRequired(),
		jwt.WithStrictDecoding(),
	)
	verify := func(token string) (*jwt.Token, error) {
		return parser.Parse(token, func(token *jwt.Token) (any, error) {
			kid, _ := token.Header["kid"].(string)
			key, err := keys.KeyRead(context.Background(), kid)
			return key.Key(), err
		})
	}

	good, err := verify(token)
	if err != nil {
		fail("the token is refused: %v", err)
	}
	if typ := good.Header["typ"]; typ != "at+jwt" {
		fail("the token is of type %v", typ)
	}
	if subject, err := good.Claims.GetSubject(); err != nil || subject != user {
		fail("the token is about %v (%v), not %v", subject, err, user)
	}
	for what, altered := range alterations(token) {
		if _, err := verify(altered); err == nil {
			fail("a token with %s is accepted", what)
		}
	}
	fmt.Printf("ok: Go verifies %s\n", algorithm)
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
