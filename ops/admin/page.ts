/**
 * The page of the admin port, and the policy that lets it do what it needs and nothing else.
 *
 * @module
 */

import page from "./page.html" with { type: "text" };
import type { Reply } from "./http/exchange.ts";

/** Makes the answer that carries the page. Its scripts and styles may run because the policy has their digests. */
export async function loadPage(): Promise<Reply> {
  const policy = [
    "default-src 'none'",
    `script-src ${await digests("script")}`,
    `style-src ${await digests("style")}`,
    "connect-src 'self'",
    "img-src data:",
    "form-action 'self'",
    "frame-ancestors 'none'",
    "base-uri 'none'",
    // No text becomes markup: the page shows what clients have sent.
    "require-trusted-types-for 'script'",
  ];
  const headers = { "Content-Security-Policy": policy.join("; ") };
  return { status: 200, type: "text/html; charset=utf-8", body: page, headers };
}

async function digests(element: "script" | "style"): Promise<string> {
  const texts = Array.from(
    page.matchAll(new RegExp(`<${element}\\b[^>]*>(.*?)</${element}>`, "gs")),
    ([, text]) => text,
  );
  const sources = await Promise.all(texts.map(async (text) => {
    // The browser's parser turns each line end into a line feed before it computes the digest.
    const bytes = new TextEncoder().encode(text.replaceAll(/\r\n?/g, "\n"));
    return `'sha256-${new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toBase64()}'`;
  }));
  return sources.join(" ") || "'none'";
}
