// A label map that is painted on: one label a pixel, no colours in between.

export class LabelMap {
  /** @param canvas where it shows; @param colours [r, g, b] of each label */
  constructor(canvas, colours) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.colours = colours;
    this.packed = new Uint32Array(colours.map(([r, g, b]) => 0xff000000 | (b << 16) | (g << 8) | r));
    this.show(new Uint8Array(1));
  }

  /** Take labels of a square picture, Uint8Array, as they are now and as erasing gives them back. */
  show(labels, base = labels) {
    this.labels = labels.slice();
    this.base = base;
    this.size = Math.round(Math.sqrt(labels.length));
    this.canvas.width = this.canvas.height = this.size;
    this.#draw(0, 0, this.size, this.size);
  }

  at(x, y) {
    const inside = x >= 0 && y >= 0 && x < this.size && y < this.size;
    return inside ? this.labels[Math.floor(y) * this.size + Math.floor(x)] : null;
  }

  /** Paint a line of a round brush; a label of null gives back what was there at first. */
  stroke(x0, y0, x1, y1, width, label) {
    const n = this.size, r = Math.max(width / 2, 0.5);
    const left = Math.max(0, Math.floor(Math.min(x0, x1) - r)), right = Math.min(n, Math.ceil(Math.max(x0, x1) + r) + 1);
    const top = Math.max(0, Math.floor(Math.min(y0, y1) - r)), bottom = Math.min(n, Math.ceil(Math.max(y0, y1) + r) + 1);
    const dx = x1 - x0, dy = y1 - y0, length = dx * dx + dy * dy;
    for (let y = top; y < bottom; y++) {
      for (let x = left; x < right; x++) {
        const px = x + 0.5 - x0, py = y + 0.5 - y0;
        const t = length ? Math.min(1, Math.max(0, (px * dx + py * dy) / length)) : 0;
        if ((px - t * dx) ** 2 + (py - t * dy) ** 2 <= r * r) {
          this.labels[y * n + x] = label ?? this.base[y * n + x];
        }
      }
    }
    if (right > left && bottom > top) this.#draw(left, top, right - left, bottom - top);
  }

  /** Give the connected region around a pixel another label. */
  fill(x, y, label) {
    const n = this.size, from = this.at(x, y);
    if (from === null || from === label) return;
    const waiting = [Math.floor(y) * n + Math.floor(x)];
    while (waiting.length) {
      const i = waiting.pop();
      if (this.labels[i] !== from) continue;
      this.labels[i] = label;
      const column = i % n;
      if (column > 0) waiting.push(i - 1);
      if (column < n - 1) waiting.push(i + 1);
      if (i >= n) waiting.push(i - n);
      if (i < n * (n - 1)) waiting.push(i + n);
    }
    this.#draw(0, 0, n, n);
  }

  #draw(left, top, width, height) {
    const pixels = new ImageData(width, height), words = new Uint32Array(pixels.data.buffer);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        words[y * width + x] = this.packed[this.labels[(top + y) * this.size + left + x]];
      }
    }
    this.context.putImageData(pixels, left, top);
  }
}

/** Labels as the palette PNG that `semedit edit --mask` takes. Not by the canvas: browsers that
 *  guard against fingerprints change the colours that a canvas gives back. */
export async function png(labels, colours) {
  const n = Math.round(Math.sqrt(labels.length));
  const rows = new Uint8Array(n * (n + 1)); // each begins with its filter: none
  for (let y = 0; y < n; y++) rows.set(labels.subarray(y * n, (y + 1) * n), y * (n + 1) + 1);
  const packed = new Response(new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate")));
  const header = new DataView(new ArrayBuffer(13));
  header.setUint32(0, n);
  header.setUint32(4, n);
  header.setUint8(8, 8); // bits
  header.setUint8(9, 3); // a palette
  return new Blob([
    Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a),
    chunk("IHDR", new Uint8Array(header.buffer)),
    chunk("PLTE", Uint8Array.from(colours.flat())),
    chunk("IDAT", new Uint8Array(await packed.arrayBuffer())),
    chunk("IEND", new Uint8Array()),
  ], { type: "image/png" });
}

function chunk(name, data) {
  const bytes = new Uint8Array(12 + data.length), view = new DataView(bytes.buffer);
  view.setUint32(0, data.length);
  bytes.set(new TextEncoder().encode(name), 4);
  bytes.set(data, 8);
  let crc = -1;
  for (const byte of bytes.subarray(4, 8 + data.length)) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  }
  view.setInt32(8 + data.length, ~crc);
  return bytes;
}

/** Whether two maps are the same, pixel by pixel. */
export const same = (a, b) => a.length === b.length && a.every((label, i) => label === b[i]);
