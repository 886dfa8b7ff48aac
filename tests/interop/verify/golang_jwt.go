package main

import (
	"context"
	"fmt"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
)

// golangJWT verifies with golang-jwt. The key set is kept, and fetched again for an unknown `kid`.
func golangJWT(uri, algorithm string) verifier {
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
	return func(text string) (string, error) {
		token, err := parser.Parse(text, func(token *jwt.Token) (any, error) {
			kid, _ := token.Header["kid"].(string)
			key, err := keys.KeyRead(context.Background(), kid)
			return key.Key(), err
		})
		if err != nil {
			return "", err
		}
		if typ := token.Header["typ"]; typ != "at+jwt" {
			return "", fmt.Errorf("a token of type %v", typ)
		}
		return token.Claims.GetSubject()
	}
}
