// The WebSocket: opened again whenever it is lost, until the page is left.

const SOONEST_MS = 300;
const LATEST_MS = 5000;
const REFUSED = [1008, 1013];
// A tab from which nothing is heard for ten seconds may lose its place to another one.
const SIGN_OF_LIFE_MS = 3000;

export class Connection {
  // hello(message), news(header, parts) -> promise, note(message), state(name, text)
  constructor(handlers) {
    this.handlers = handlers;
    this.wait = SOONEST_MS;
    this.drawn = Promise.resolve();
    this.open();
    setInterval(() => this.send("seen", this.seen), SIGN_OF_LIFE_MS);
  }

  open() {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    this.received = this.seen = 0;
    this.socket = new WebSocket(`${scheme}//${location.host}/play${location.search}`);
    this.socket.binaryType = "arraybuffer";
    this.socket.onmessage = ({ data, target }) => this.receive(data, target);
    this.socket.onclose = (event) => this.closed(event);
  }

  send(name, value) {
    if (this.socket.readyState !== WebSocket.OPEN) return;
    this.socket.send(JSON.stringify(value === undefined ? { name } : { name, value }));
  }

  receive(data, socket) {
    if (typeof data === "string") {
      const message = JSON.parse(data);
      if (message.type !== "hello") return this.handlers.note(message);
      this.wait = SOONEST_MS;
      this.handlers.state("open", "connected");
      return this.handlers.hello(message);
    }
    const { header, parts } = unpack(data);
    const number = ++this.received;
    // The server sends on only when told that a frame has been drawn: a slow page gets fewer.
    this.drawn = this.drawn
      .then(() => this.handlers.news(header, parts))
      .finally(() => { if (socket === this.socket) this.send("seen", (this.seen = number)); });
  }

  closed({ code, reason }) {
    const refused = REFUSED.includes(code) && reason;
    this.handlers.state(refused ? "refused" : "lost", refused ? reason : "connection lost, trying again");
    setTimeout(() => this.open(), refused ? LATEST_MS : this.wait);
    this.wait = Math.min(this.wait * 1.7, LATEST_MS);
  }
}

function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const parts = {};
  let offset = 4 + length;
  for (const [name, bytes] of header.parts) {
    parts[name] = new Uint8Array(buffer, offset, bytes);
    offset += bytes;
  }
  return { header, parts };
}
