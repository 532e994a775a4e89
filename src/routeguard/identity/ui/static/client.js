// The browser's side of Routeguard, without dependencies: import { createClient } from "/auth/client.js".
//
// It sends requests to its own origin with the CSRF token, renews tokens once for all tabs, makes a request again
// after that, and says when the user has to prove again that it is he. Tokens are in cookies that no script can read
// (or, with { keep: "memory" }, in this page's memory): never in localStorage, where any injected script finds them.

const SAFE = new Set(["GET", "HEAD", "OPTIONS"]);
// 401s that another token does not mend.
const OTHER_401 = new Set(["invalid-credentials", "invalid-api-key", "step-up-required"]);
// For how long a tab that waited can see that another has renewed. Milliseconds.
const SEEN_FOR = 60_000;

/** A refusal of the service (RFC 9457): `status`, `code`, `type`, `detail`, `members`, `retryAfter` in seconds. */
export class Problem extends Error {
  constructor(status, members, retryAfter) {
    super(members.detail ?? members.title ?? `The service answered ${status}.`);
    this.name = "Problem";
    this.status = status;
    this.type = typeof members.type === "string" ? members.type : "about:blank";
    this.code = this.type.split("/").at(-1);
    this.detail = members.detail ?? null;
    this.members = members;
    this.retryAfter = retryAfter;
  }
}

/**
 * Make a client of the service that served this module.
 *
 * `base` is where the service's paths begin, if that is not where this module came from; only the page's own origin.
 * `keep` says where tokens live: "cookies" (HttpOnly, shared by all tabs) or "memory" (this page alone).
 */
export function createClient({ base = new URL("../", import.meta.url).href, keep = "cookies" } = {}) {
  const root = new URL(base, location.href);
  if (root.origin !== location.origin) throw new TypeError("base has to be of this page's own origin");
  if (keep !== "cookies" && keep !== "memory") throw new TypeError('keep is "cookies" or "memory"');
  if (!root.pathname.endsWith("/")) root.pathname += "/";
  const scope = `routeguard ${root.href}`;

  let csrf = null; // a promise of the token, so that requests at the same time share one fetch
  let pair = null; // { access, refresh }, only with keep: "memory"
  let flight = null; // the renewal under way in this tab
  let renewedAt = 0; // when tokens were last renewed, in any tab
  let signedOut = false; // nothing to renew until somebody signs in
  const stepUps = new Set();
  const changes = new Set();

  const channel = typeof BroadcastChannel === "function" && keep === "cookies" ? new BroadcastChannel(scope) : null;
  channel?.addEventListener("message", ({ data }) => hear(data));

  function hear(data) {
    if (typeof data?.renewed === "number") renewedAt = Math.max(renewedAt, data.renewed);
    if (data?.changed === "signed-in" || data?.changed === "signed-out") begin(data.changed);
  }

  // A session has begun or ended, here or in another tab: what was bound to the old one is void.
  function begin(change) {
    csrf = null;
    signedOut = change === "signed-out";
    if (signedOut) pair = null;
    for (const handler of changes) handler(change);
  }

  function tell(change) {
    begin(change);
    channel?.postMessage({ changed: change });
  }

  const path = (name) => new URL(name, root).href;

  async function problemOf(response) {
    let members = {};
    if ((response.headers.get("content-type") ?? "").startsWith("application/problem+json")) {
      const body = await response.clone().json().catch(() => null);
      if (body !== null && typeof body === "object") members = body;
    }
    const after = response.headers.get("retry-after") ?? "";
    return new Problem(response.status, members, /^\d{1,9}$/.test(after) ? Number(after) : null);
  }

  function csrfToken() {
    csrf ??= fetch(path("auth/csrf"), { cache: "no-store", redirect: "error" }).then(
      async (response) => (response.ok ? (await response.json()).csrf_token : null),
    ).catch(() => null).then((token) => {
      if (token === null) csrf = null; // Not kept: the next request asks again.
      return token;
    });
    return csrf;
  }

  // One try. Credentials are added to a copy, so that the next try begins with the request as it was made.
  async function attempt(request) {
    const headers = new Headers(request.headers);
    let secret = false;
    if (pair !== null && !headers.has("authorization")) {
      headers.set("authorization", `Bearer ${pair.access}`);
      secret = true;
    }
    if (!SAFE.has(request.method) && !headers.has("x-csrf-token")) {
      const token = await csrfToken();
      if (token !== null) {
        headers.set("x-csrf-token", token);
        secret = true;
      }
    }
    // A redirect would carry these fields on, to wherever it leads.
    const redirect = secret && request.redirect === "follow" ? "error" : request.redirect;
    return fetch(new Request(request.clone(), { headers, redirect }));
  }

  // A try, and another one when the CSRF token was that of an earlier session.
  async function attemptUnforged(request) {
    const response = await attempt(request);
    if (response.status !== 403 || SAFE.has(request.method) || request.headers.has("x-csrf-token")) return response;
    if ((await problemOf(response)).code !== "forgery-suspected") return response;
    csrf = null;
    return attempt(request);
  }

  /**
   * Like `fetch`, and `json` in `init` is sent as a body of application/json. Requests to other origins are passed on
   * untouched and carry nothing of ours.
   */
  async function send(input, init) {
    const request = requestOf(input, init);
    if (new URL(request.url).origin !== root.origin) return fetch(request);
    const begun = Date.now();
    let response = await attemptUnforged(request);
    let problem = response.status === 401 ? await problemOf(response) : null;
    if (problem !== null && !OTHER_401.has(problem.code) && !signedOut) {
      const renewal = await renew(begun);
      // An outage or a limit is told as what it is, not as "not signed in".
      if (!renewal.ok) return renewal.status === 401 ? response : renewal.response();
      response = await attemptUnforged(request);
      problem = response.status === 401 ? await problemOf(response) : null;
    }
    if (problem?.code === "step-up-required" && (await steppedUp(problem))) return attemptUnforged(request);
    return response;
  }

  function requestOf(input, { json, ...init } = {}) {
    if (json === undefined) return new Request(input, init);
    if (init.body !== undefined) throw new TypeError("a request has either json or a body");
    const headers = new Headers(init.headers ?? (input instanceof Request ? input.headers : undefined));
    if (!headers.has("content-type")) headers.set("content-type", "application/json");
    return new Request(input, { ...init, headers, body: JSON.stringify(json) });
  }

  async function steppedUp(problem) {
    const { max_age: maxAge = null, acr_values: acrValues = null } = problem.members;
    for (const handler of stepUps) {
      if (await handler({ maxAge, acrValues: acrValues?.split(" ") ?? [], problem })) return true;
    }
    return false;
  }

  // Renew the tokens unless that was done since `begun`. One renewal for this tab, and one for all tabs.
  async function renew(begun) {
    for (;;) {
      if (isSince(renewedAt, begun)) return { ok: true };
      const mine = flight === null;
      flight ??= exclusively(async () => ((await renewedElsewhere(begun)) ? { ok: true } : rotate())).finally(() => {
        flight = null;
      });
      const renewal = await flight;
      // What was begun for an earlier request may have been enough for that one only.
      if (mine || !renewal.ok) return renewal;
    }
  }

  // A clock that was set back makes a time of the future mean nothing.
  const isSince = (time, begun) => time > begun && time <= Date.now();

  // Null where the browser has no locks, and in a frame on another site whose browser refuses them with a
  // SecurityError: each page renews for itself then.
  async function lockManager() {
    if (keep !== "cookies" || navigator.locks === undefined) return null;
    return navigator.locks.query().then(() => navigator.locks, () => null);
  }

  async function exclusively(work) {
    const locks = await lockManager();
    return locks === null ? work() : locks.request(scope, work);
  }

  // Messages may come later than the lock. So who has renewed holds a lock whose name says when, and whoever gets the
  // first lock after that sees the second.
  async function renewedElsewhere(begun) {
    if (isSince(renewedAt, begun)) return true;
    const locks = await lockManager();
    if (locks === null) return false;
    const { held } = await locks.query();
    const marks = held.map(({ name }) => name).filter((name) => name.startsWith(`${scope} `));
    const times = marks.map((name) => Number(name.split(" ").at(-1)));
    const latest = Math.max(0, ...times.filter((time) => time <= Date.now()));
    renewedAt = Math.max(renewedAt, latest);
    return isSince(latest, begun);
  }

  async function rotate() {
    const body = JSON.stringify(pair === null ? {} : { refresh_token: pair.refresh });
    const headers = { "content-type": "application/json" };
    const request = new Request(path("auth/token/refresh"), { method: "POST", headers, body, redirect: "error" });
    let response;
    try {
      response = await fetch(request.clone());
    } catch {
      // The answer may be lost and the token spent: presented again at once, it gets the same successor.
      response = await fetch(request);
    }
    if (response.ok) {
      if (pair !== null) pair = pairOf(await response.json());
      await announce();
    } else if (response.status === 401) {
      signedOut = true;
      pair = null;
    }
    return { ok: response.ok, status: response.status, response: () => response.clone() };
  }

  async function announce() {
    renewedAt = Date.now();
    channel?.postMessage({ renewed: renewedAt });
    const locks = await lockManager();
    if (locks === null) return;
    await new Promise((resolve) => {
      const seen = () => new Promise((release) => (resolve(), setTimeout(release, SEEN_FOR)));
      locks.request(`${scope} ${renewedAt}`, { mode: "shared" }, seen).catch(resolve);
    });
  }

  const pairOf = ({ access_token: access, refresh_token: refresh }) => ({ access, refresh });

  // A request to the service itself; 401 is its answer then, not a reason to renew.
  async function ask(name, body) {
    const headers = { "content-type": "application/json" };
    const init = { method: "POST", headers, body: JSON.stringify(body) };
    const response = await attemptUnforged(new Request(path(name), init));
    if (!response.ok) throw await problemOf(response);
    return response.status === 204 ? null : response.json();
  }

  /** Return the session, or null when nobody is signed in. Throws Problem when that cannot be told. */
  async function session() {
    const response = await send(path("auth/session"), { cache: "no-store" });
    if (response.status === 401) return null;
    if (!response.ok) throw await problemOf(response);
    signedOut = false;
    return response.json();
  }

  /** Begin a session, with tokens that `keep` says where to put. Returns it; throws Problem. */
  async function signIn({ email, password }) {
    pair = null;
    const found = await ask("auth/sign-in", { email, password });
    csrf = null;
    const tokens = await ask("auth/token", keep === "cookies" ? { cookies: true } : {});
    if (keep === "memory") pair = pairOf(tokens);
    tell("signed-in");
    return found;
  }

  /** Ask for an account. Signs nobody in, and says nothing of whether the address has one. */
  async function signUp({ email, password, name = "" }) {
    await ask("auth/sign-up", { email, password, name });
  }

  /** End the session, here and in the other tabs. */
  async function signOut() {
    await ask("auth/sign-out", {});
    tell("signed-out");
  }

  /**
   * Renew the tokens now. Returns whether that was done: false for a session that has no tokens, which may well be
   * alive; ask `session()` who is signed in. Throws Problem when it cannot be told.
   */
  async function refresh() {
    const renewal = await renew(Date.now());
    if (renewal.ok) return true;
    if (renewal.status === 401) return false;
    throw await problemOf(renewal.response());
  }

  /**
   * Open a WebSocket with a one-time ticket: from a page of another origin, where no cookie goes along. `protocols` are
   * the application's own. Throws Problem when there is no ticket to be had.
   */
  async function socket(url, protocols = []) {
    const target = new URL(url, base);
    target.protocol = target.protocol.replace("http", "ws");
    const response = await send(path("auth/ticket"), { method: "POST", json: { path: target.pathname } });
    if (!response.ok) throw await problemOf(response);
    const { ticket } = await response.json();
    return new WebSocket(target, [...protocols, "routeguard", `routeguard.ticket.${ticket}`]);
  }

  // Register a handler; what is returned takes it back.
  const register = (handlers) => (handler) => {
    handlers.add(handler);
    return () => handlers.delete(handler);
  };

  return Object.freeze({
    fetch: send,
    session,
    signIn,
    signOut,
    signUp,
    refresh,
    socket,
    /** `handler({ maxAge, acrValues, problem })` has the user prove who he is; a true answer has the request repeated. */
    onStepUp: register(stepUps),
    /** `handler("signed-in" | "signed-out")`, in every tab. */
    onChange: register(changes),
  });
}
