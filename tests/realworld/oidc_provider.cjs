// An organisation's identity provider: the `oidc-provider` of npm, certified for OpenID Connect, with
// the device flow. Its people are in the environment; lines of JSON on stdin change it while it runs.
//
//   PORT, CERT, KEY     where it listens, with TLS
//   PEOPLE              {"ada": ["field"]}: each person's groups
//   REFRESH_SECONDS     how long a login can be renewed
//   CLIENT_SECRET       that of the clients that have one

const { createServer } = require("node:https");
const { readFileSync } = require("node:fs");
const { createInterface } = require("node:readline");
const { generateKeyPairSync, randomUUID } = require("node:crypto");
const { pathToFileURL } = require("node:url");

const { PORT, CERT, KEY, PEOPLE, REFRESH_SECONDS, CLIENT_SECRET } = process.env;
const issuer = `https://localhost:${PORT}`;
const people = JSON.parse(PEOPLE);

// What the provider stores: kept when the provider is made anew with other keys.
const stored = new Map();
class Adapter {
  constructor(model) {
    this.model = model;
  }
  key(id) {
    return `${this.model}:${id}`;
  }
  all() {
    return [...stored].filter(([key]) => key.startsWith(`${this.model}:`));
  }
  async upsert(id, payload, seconds) {
    stored.set(this.key(id), { payload, until: seconds ? Date.now() + seconds * 1000 : Infinity });
  }
  async find(id) {
    const found = stored.get(this.key(id));
    return found && found.until > Date.now() ? found.payload : undefined;
  }
  async findByUid(uid) {
    return this.all().map(([, { payload }]) => payload).find((payload) => payload.uid === uid);
  }
  async findByUserCode(code) {
    return this.all().map(([, { payload }]) => payload).find((payload) => payload.userCode === code);
  }
  async destroy(id) {
    stored.delete(this.key(id));
  }
  async consume(id) {
    const found = stored.get(this.key(id));
    if (found) found.payload.consumed = Math.floor(Date.now() / 1000);
  }
  async revokeByGrantId(grantId) {
    for (const [key, { payload }] of stored) if (payload.grantId === grantId) stored.delete(key);
  }
}

function signingKey() {
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  return { ...privateKey.export({ format: "jwk" }), use: "sig", alg: "RS256", kid: randomUUID() };
}

// Without a secret, or with one that is shown by this method alone.
function client(id, method = "none") {
  return {
    client_id: id,
    ...(method === "none" ? {} : { client_secret: CLIENT_SECRET }),
    application_type: "native",
    token_endpoint_auth_method: method,
    grant_types: ["urn:ietf:params:oauth:grant-type:device_code", "refresh_token"],
    response_types: [],
    redirect_uris: [],
  };
}

async function main() {
  const { Provider } = await import(pathToFileURL(require.resolve("oidc-provider")));
  const make = () => {
    const provider = new Provider(issuer, {
      adapter: Adapter,
      jwks: { keys: [signingKey()] },
      clients: [
        client("service-proxy"),
        client("another-program"),
        client("secret-in-the-head", "client_secret_basic"),
        client("secret-in-the-body", "client_secret_post"),
      ],
      cookies: { keys: ["of-this-test"] },
      claims: { openid: ["sub"], email: ["email", "email_verified"], groups: ["groups"] },
      scopes: ["openid", "offline_access", "email", "groups"],
      conformIdTokenClaims: false,
      features: { deviceFlow: { enabled: true }, devInteractions: { enabled: true } },
      issueRefreshToken: async () => true,
      rotateRefreshToken: true,
      ttl: {
        AccessToken: 60,
        DeviceCode: 60,
        IdToken: 60,
        RefreshToken: Number(REFRESH_SECONDS),
        Grant: 3600,
        Interaction: 60,
        Session: 3600,
      },
      findAccount: (context, id) =>
        id in people && {
          accountId: id,
          claims: () => ({ sub: id, email: `${id}@example.com`, email_verified: true, groups: people[id] }),
        },
    });
    for (const event of ["server_error", "grant.error"]) {
      provider.on(event, (context, error) => console.log(event, error?.message, error?.error_detail ?? ""));
    }
    return provider.callback();
  };
  let answer = make();
  const server = createServer({ cert: readFileSync(CERT), key: readFileSync(KEY) }, (request, response) =>
    answer(request, response),
  );
  server.listen(Number(PORT), "127.0.0.1", () => console.log("provider ready"));
  createInterface({ input: process.stdin }).on("line", (line) => {
    const { rotate, person, groups, forget } = JSON.parse(line);
    if (rotate) answer = make();
    if (person) people[person] = groups;
    // As if its time were over.
    if (forget) for (const key of stored.keys()) if (key.startsWith("RefreshToken:")) stored.delete(key);
    console.log("changed", line);
  });
}

main();
