/** A document of some pages of text, and a picture that makes it larger than a few parts. */

import { randomFillSync } from "node:crypto";

const PAGES = 12;
const PICTURE_BYTES = 4_500_000;

export const LAST_PAGE_TEXT = `This is page ${PAGES}`;

export function pdf(): Buffer {
  const objects: Buffer[] = [];
  const add = (text: string, stream?: Buffer) => {
    const body = stream ? [Buffer.from(`${text}\nstream\n`), stream, Buffer.from("\nendstream")] : [Buffer.from(text)];
    objects.push(Buffer.concat([Buffer.from(`${objects.length + 1} 0 obj\n`), ...body, Buffer.from("\nendobj\n")]));
    return objects.length;
  };
  const pagesAt = 4 + 2 * PAGES;
  add(`<< /Type /Catalog /Pages ${pagesAt} 0 R >>`);
  add("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>");
  const [width, height] = [1_500, PICTURE_BYTES / 3 / 1_500];
  const picture = `<< /Type /XObject /Subtype /Image /Width ${width} /Height ${height} /ColorSpace /DeviceRGB /BitsPerComponent 8 /Length ${PICTURE_BYTES} >>`;
  add(picture, randomFillSync(Buffer.alloc(PICTURE_BYTES)));
  const pages: number[] = [];
  for (let page = 1; page <= PAGES; page++) {
    const text = Buffer.from(`BT /F1 24 Tf 72 700 Td (This is page ${page}) Tj ET${page === 1 ? " q 300 0 0 300 72 72 cm /P Do Q" : ""}`);
    const content = add(`<< /Length ${text.byteLength} >>`, text);
    pages.push(add(`<< /Type /Page /Parent ${pagesAt} 0 R /MediaBox [0 0 595 842] /Contents ${content} 0 R /Resources << /Font << /F1 2 0 R >> /XObject << /P 3 0 R >> >> >>`));
  }
  add(`<< /Type /Pages /Count ${PAGES} /Kids [${pages.map((page) => `${page} 0 R`).join(" ")}] >>`);
  const header = Buffer.from("%PDF-1.4\n");
  let at = header.byteLength;
  const places = objects.map(({ byteLength }) => `${String((at += byteLength) - byteLength).padStart(10, "0")} 00000 n \n`);
  const table = `xref\n0 ${objects.length + 1}\n0000000000 65535 f \n${places.join("")}trailer\n<< /Size ${objects.length + 1} /Root 1 0 R >>\nstartxref\n${at}\n%%EOF\n`;
  return Buffer.concat([header, ...objects, Buffer.from(table)]);
}
