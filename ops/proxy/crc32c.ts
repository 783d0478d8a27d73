/**
 * The checksum of SCTP and iSCSI, which the PROXY protocol borrows (RFC 4960, appendix B).
 *
 * @module
 */

/** What each byte does to the checksum; the polynomial is 0x1EDC6F41, its bits reversed. */
const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit++) byte = byte & 1 ? byte >>> 1 ^ 0x82F63B78 : byte >>> 1;
  return byte;
});

/**
 * The CRC32C of some bytes.
 *
 * @param bytes The bytes.
 * @returns 32 bits, as a number that is not negative.
 */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xFFFFFFFF;
  for (const byte of bytes) crc = TABLE[(crc ^ byte) & 0xFF] ^ crc >>> 8;
  return ~crc >>> 0;
}
