package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// goJose verifies with go-jose, which fetches no keys itself: a service that runs for long keeps the set for the
// `max-age` of the reply, and fetches it again for an unknown `kid`.
func goJose(uri, algorithm string) verifier {
	keys, err := fetchKeys(uri)
	if err != nil {
		fail("the keys cannot be fetched: %v", err)
	}
	algorithms := []jose.SignatureAlgorithm{jose.SignatureAlgorithm(algorithm)}
	return func(text string) (string, error) {
		token, err := jwt.ParseSigned(text, algorithms)
		if err != nil {
			return "", err
		}
		if typ := token.Headers[0].ExtraHeaders[jose.HeaderType]; typ != "at+jwt" {
			return "", fmt.Errorf("a token of type %v", typ)
		}
		var claims jwt.Claims
		if err := token.Claims(keys, &claims); err != nil {
			return "", err
		}
		if claims.Expiry == nil {
			return "", errors.New("a token that does not expire")
		}
		expected := jwt.Expected{Issuer: "identity", AnyAudience: jwt.Audience{"identity"}}
		return claims.Subject, claims.Validate(expected)
	}
}

func fetchKeys(uri string) (*jose.JSONWebKeySet, error) {
	reply, err := http.Get(uri)
	if err != nil {
		return nil, err
	}
	defer reply.Body.Close()
	keys := new(jose.JSONWebKeySet)
	return keys, json.NewDecoder(reply.Body).Decode(keys)
}
