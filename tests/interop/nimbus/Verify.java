// Verifies an access token as a Java service would: with Nimbus JOSE+JWT, and the keys that the identity service
// publishes. Fails unless the token is good and altered ones are not.
//
// Usage: java -cp JARS Verify.java JWKS_URI ALGORITHM USER_ID TOKEN
//   JARS  those that pom.xml names

import com.nimbusds.jose.JOSEException;
import com.nimbusds.jose.JOSEObjectType;
import com.nimbusds.jose.JWSAlgorithm;
import com.nimbusds.jose.crypto.Ed25519Verifier;
import com.nimbusds.jose.jwk.JWKMatcher;
import com.nimbusds.jose.jwk.JWKSelector;
import com.nimbusds.jose.jwk.source.JWKSource;
import com.nimbusds.jose.jwk.source.JWKSourceBuilder;
import com.nimbusds.jose.proc.BadJOSEException;
import com.nimbusds.jose.proc.DefaultJOSEObjectTypeVerifier;
import com.nimbusds.jose.proc.JWSVerificationKeySelector;
import com.nimbusds.jose.proc.SecurityContext;
import com.nimbusds.jwt.JWTClaimsSet;
import com.nimbusds.jwt.SignedJWT;
import com.nimbusds.jwt.proc.DefaultJWTClaimsVerifier;
import com.nimbusds.jwt.proc.DefaultJWTProcessor;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.text.ParseException;
import java.util.Base64;
import java.util.Map;
import java.util.Set;

final class Verify {
    private final JWKSource<SecurityContext> keys;
    private final DefaultJOSEObjectTypeVerifier<SecurityContext> type =
        new DefaultJOSEObjectTypeVerifier<>(new JOSEObjectType("at+jwt"));
    private final DefaultJWTClaimsVerifier<SecurityContext> claims = new DefaultJWTClaimsVerifier<>(
        "identity", new JWTClaimsSet.Builder().issuer("identity").build(), Set.of("sub", "exp"));

    private Verify(URI uri) throws Exception {
        keys = JWKSourceBuilder.create(uri.toURL()).build();
    }

    private JWTClaimsSet rs256(String token) throws ParseException, JOSEException, BadJOSEException {
        var processor = new DefaultJWTProcessor<SecurityContext>();
        processor.setJWSTypeVerifier(type);
        processor.setJWSKeySelector(new JWSVerificationKeySelector<>(JWSAlgorithm.RS256, keys));
        processor.setJWTClaimsSetVerifier(claims);
        return processor.process(token, null);
    }

    private JWTClaimsSet edDSA(String token) throws ParseException, JOSEException, BadJOSEException {
        var jwt = SignedJWT.parse(token);
        var header = jwt.getHeader();
        type.verify(header.getType(), null);
        if (!JWSAlgorithm.EdDSA.equals(header.getAlgorithm())) {
            throw new BadJOSEException("another algorithm");
        }
        var found = keys.get(new JWKSelector(JWKMatcher.forJWSHeader(header)), null);
        if (found.isEmpty() || !jwt.verify(new Ed25519Verifier(found.get(0).toOctetKeyPair()))) {
            throw new BadJOSEException("no key verifies it");
        }
        claims.verify(jwt.getJWTClaimsSet(), null);
        return jwt.getJWTClaimsSet();
    }

    private JWTClaimsSet verify(String algorithm, String token)
        throws ParseException, JOSEException, BadJOSEException {
        return switch (algorithm) {
            case "RS256" -> rs256(token);
            case "EdDSA" -> edDSA(token);
            default -> throw new IllegalArgumentException(algorithm);
        };
    }

    private static Map<String, String> alterations(String token) {
        var parts = token.split("\\.");
        var encoder = Base64.getUrlEncoder().withoutPadding();
        var claims = new String(Base64.getUrlDecoder().decode(parts[1]), StandardCharsets.UTF_8);
        var raised = claims.replaceFirst("\"exp\":1", "\"exp\":2");
        if (raised.equals(claims)) {
            throw new AssertionError("no time of expiry in " + claims);
        }
        var later = encoder.encodeToString(raised.getBytes(StandardCharsets.UTF_8));
        var nothing = encoder.encodeToString("{\"alg\":\"none\",\"typ\":\"at+jwt\"}".getBytes(StandardCharsets.UTF_8));
        return Map.of(
            "another expiry", parts[0] + "." + later + "." + parts[2],
            "another signature", parts[0] + "." + parts[1] + "." + "A".repeat(parts[2].length()),
            "no signature", parts[0] + "." + parts[1] + ".",
            "the algorithm 'none'", nothing + "." + parts[1] + ".");
    }

    public static void main(String[] arguments) throws Exception {
        String algorithm = arguments[1], user = arguments[2], token = arguments[3];
        var verify = new Verify(URI.create(arguments[0]));
        var subject = verify.verify(algorithm, token).getSubject();
        if (!subject.equals(user)) {
            throw new AssertionError("the token is about " + subject);
        }
        for (var altered : alterations(token).entrySet()) {
            try {
                verify.verify(algorithm, altered.getValue());
            } catch (ParseException | JOSEException | BadJOSEException refused) {
                continue;
            }
            throw new AssertionError("a token with " + altered.getKey() + " is accepted");
        }
        System.out.println("ok: Java verifies " + algorithm);
    }
}
