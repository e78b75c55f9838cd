// Names from guests: how they travel and how they are shown.
//
// Owns two things. The first is the form of a name in an address: a guest's name is bytes, not
// always UTF-8, and the API's JSON gives each byte that is not as a lone surrogate U+DC80..U+DCFF
// (what Python calls surrogateescape). encodeURIComponent throws at those, so addresses are made
// and read here. The second is what of a name a person sees: control characters, and those that
// turn the reading direction, become visible signs. Names reach the document as text only.

const UTF8 = new TextEncoder();
const STRICT = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Return the bytes of a name, those that are not UTF-8 included. */
export function bytesOf(name) {
  const parts = [];
  let plain = "";
  for (const char of name) {
    const code = char.codePointAt(0);
    if (code >= 0xdc80 && code <= 0xdcff) {
      parts.push(UTF8.encode(plain), Uint8Array.of(code - 0xdc00));
      plain = "";
    } else {
      plain += char;
    }
  }
  parts.push(UTF8.encode(plain));
  return parts.flatMap((part) => [...part]);
}

/** Whether a name's bytes are UTF-8. */
export const isUtf8 = (name) => !/\p{Surrogate}/u.test(name);

/** Percent-encode a name for an address; "/" too unless it is to stay. */
export function encode(name, keepSlash = false) {
  if (isUtf8(name)) {
    const plain = encodeURIComponent(name);
    return keepSlash ? plain.replaceAll("%2F", "/") : plain;
  }
  return bytesOf(name)
    .map((byte) => {
      const char = String.fromCharCode(byte);
      const plain = /[A-Za-z0-9._~-]/.test(char) || (keepSlash && char === "/");
      return plain ? char : "%" + byte.toString(16).padStart(2, "0").toUpperCase();
    })
    .join("");
}

/** Read what encode() wrote; also what a browser or a person made of it. */
export function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return fromBytes(bytesOfEscapes(text));
  }
}

function bytesOfEscapes(text) {
  const bytes = [];
  for (const piece of text.match(/%[0-9A-Fa-f]{2}|[\s\S]/gu) ?? []) {
    const escaped = piece.length === 3 && piece[0] === "%";
    bytes.push(...(escaped ? [parseInt(piece.slice(1), 16)] : UTF8.encode(piece)));
  }
  return bytes;
}

/** Return bytes as a name; each one that is not UTF-8 as a lone surrogate. */
function fromBytes(bytes) {
  let name = "";
  for (let at = 0; at < bytes.length;) {
    const length = [1, 2, 3, 4].find((n) => isWhole(bytes.slice(at, at + n)));
    name += length
      ? STRICT.decode(Uint8Array.from(bytes.slice(at, at + length)))
      : String.fromCharCode(0xdc00 + bytes[at]);
    at += length ?? 1;
  }
  return name;
}

function isWhole(bytes) {
  try {
    return STRICT.decode(Uint8Array.from(bytes)).length > 0;
  } catch {
    return false;
  }
}

// Controls, the line and paragraph separators, the signs that turn the reading direction or join
// what looks like other letters, and bytes that are no UTF-8.
const HIDDEN =
  /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

/**
 * Cut a name into pieces to show: {text, hidden}, where hidden ones stand for what has no sign of
 * its own.
 */
export function pieces(name) {
  const found = [];
  let at = 0;
  for (const match of name.matchAll(HIDDEN)) {
    if (match.index > at) found.push({ text: name.slice(at, match.index), hidden: false });
    found.push({ text: sign(match[0].charCodeAt(0)), hidden: true });
    at = match.index + match[0].length;
  }
  if (at < name.length) found.push({ text: name.slice(at), hidden: false });
  return found;
}

/** Return a name as plain text, for titles and for what is read aloud. */
export function plain(name) {
  return pieces(name)
    .map((piece) => piece.text)
    .join("");
}

function sign(code) {
  const byte = code >= 0xdc80 && code <= 0xdcff ? code - 0xdc00 : code;
  const digits = byte.toString(16).toUpperCase();
  return byte < 0x100 && (byte < 0x80 || byte !== code)
    ? `<${digits.padStart(2, "0")}>`
    : `<U+${digits.padStart(4, "0")}>`;
}
