/**
 * CRC32C, the checksum of PROXY headers of version 2 (RFC 4960, appendix B).
 *
 * @module
 */

/** The remainder of each byte, by the polynomial 0x1EDC6F41 with its bits reversed. */
const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit++) byte = byte & 1 ? byte >>> 1 ^ 0x82F63B78 : byte >>> 1;
  return byte;
});

/**
 * Computes a CRC32C.
 *
 * @param bytes The bytes to sum up.
 * @returns The checksum, an unsigned 32-bit number.
 */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xFFFFFFFF;
  for (const byte of bytes) crc = TABLE[(crc ^ byte) & 0xFF] ^ crc >>> 8;
  return ~crc >>> 0;
}
