// Verifies an access token as a Node service would: with jose, and the keys that the identity service publishes.
// Fails unless the token is good and altered ones are not.
//
// Usage: node verify.mjs JOSE JWKS_URI ALGORITHM USER_ID TOKEN
//   JOSE  the folder that has the package
import assert from 'node:assert/strict'
import { createRequire } from 'node:module'

const [folder, uri, algorithm, user, token] = process.argv.slice(2)
const { createRemoteJWKSet, errors, jwtVerify } = await import(createRequire(`${folder}/`).resolve('jose'))

const keys = createRemoteJWKSet(new URL(uri))

function verify(token) {
  return jwtVerify(token, keys, {
    algorithms: [algorithm],
    typ: 'at+jwt',
    issuer: 'identity',
    audience: 'identity',
    requiredClaims: ['exp', 'sub'],
  })
}

const encode = value => Buffer.from(JSON.stringify(value)).toString('base64url')
const decode = text => JSON.parse(Buffer.from(text, 'base64url'))

function alterations(token) {
  const [header, claims, signature] = token.split('.')
  const later = encode({ ...decode(claims), exp: decode(claims).exp + 1 })
  const nothing = encode({ ...decode(header), alg: 'none' })
  return {
    'another expiry': `${header}.${later}.${signature}`,
    'another signature': `${header}.${claims}.${'A'.repeat(signature.length)}`,
    'no signature': `${header}.${claims}.`,
    "the algorithm 'none'": `${nothing}.${claims}.`,
  }
}

const { payload } = await verify(token)
assert.equal(payload.sub, user)
for (const [what, altered] of Object.entries(alterations(token))) {
  await assert.rejects(verify(altered), errors.JOSEError, `a token with ${what} is accepted`)
}
console.log(`ok: Node verifies ${algorithm}`)
