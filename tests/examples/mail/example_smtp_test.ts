import { assertEquals } from "@std/assert";
import { test } from "../../kit/bounded.ts";
import { EHLO, MailServer } from "../../kit/foreign/mail.ts";

const OK = "250 2.0.0 Ok";
const LATER = "503 5.5.1 Bad sequence of commands";
const [NO_SENDER, NO_RECIPIENT] = ["501 5.1.7 No <address>", "501 5.1.3 No <address>"];
const WRONG = "501 5.5.4 Wrong arguments";
const UNKNOWN = "500 5.5.1 Unknown command";
const CONTROL = "500 5.5.2 Control characters, or not UTF-8";
const ERRORS = "421 4.7.0 Too many errors";
const GOODBYE = "221 2.0.0 Bye";

/** Commands that are sent in order, each with its reply. */
const TALKS: Record<string, [command: string, reply: string][]> = {
  "greets clients of SMTP and of ESMTP": [
    ["NOOP", OK],
    ["MAIL FROM:<a@b>", "503 5.5.1 EHLO first"],
    ["AUTH PLAIN", "503 5.5.1 EHLO first"],
    ["HELO", "501 Wrong arguments"],
    ["EHLO two words", "501 Wrong arguments"],
    ["helo me ", "250 mail.shouty"],
    ["Ehlo [127.0.0.1]", EHLO],
    ["HELP", "214 2.0.0 See RFC 5321"],
    ["NOOP whatever", OK],
    ["VRFY ada", "252 2.5.0 Send a mail, and see"],
    ["VRFY", WRONG],
    ["QUIT now", WRONG],
    ["quit", GOODBYE],
  ],
  "knows in which order commands come": [
    ["EHLO me", ""],
    ["RCPT TO:<a@b>", LATER],
    ["DATA", "503 5.5.1 MAIL first"],
    ["MAIL FROM:<a@b>", "250 2.1.0 Ok"],
    ["MAIL FROM:<a@b>", LATER],
    ["DATA", "554 5.5.1 No valid recipients"],
    ["AUTH PLAIN AHVzZXIAcGFzcw==", "503 5.5.1 Not now"],
    ["RSET", OK],
    ["RCPT TO:<a@b>", LATER],
    ["MAIL FROM:<a@b>", "250 2.1.0 Ok"],
    ["EHLO me", ""],
    ["RCPT TO:<a@b>", LATER],
  ],
  "refuses what it does not know": [
    ["", UNKNOWN],
    [" NOOP", UNKNOWN],
    ["EXPN all", UNKNOWN],
    ["STARTTLS", "502 5.5.1 Not implemented"],
    ["STARTTLS now", WRONG],
  ],
  "refuses lines with characters that could end them elsewhere": [
    ["NO\xa0OP", CONTROL],
    ["NOOP\0", CONTROL],
    ["NOOP\nQUIT", CONTROL],
    ["NOOP\n", CONTROL],
    ["NOOP\r", CONTROL],
    ["NOOP\xe2\x80\xa8", CONTROL],
    ["NOOP\rQUIT", CONTROL],
  ],
  "knows what an address is": [
    ["EHLO me", ""],
    ["MAIL FROM", WRONG],
    ["MAIL TO:<a@b>", WRONG],
    ["MAIL FROM:a@b", NO_SENDER],
    ["MAIL FROM:<a@b", NO_SENDER],
    ["MAIL FROM:<a b@c>", NO_SENDER],
    ["MAIL FROM:<a@b@c>", NO_SENDER],
    ["MAIL FROM:<a@b>x", NO_SENDER],
    ["MAIL FROM:x <a@b>", NO_SENDER],
    ["MAIL FROM:<@a,@b:>", NO_SENDER],
    ["MAIL FROM: <>", "250 2.1.0 Ok"],
    ["RCPT TO:<>", NO_RECIPIENT],
  ],
  "refuses more than ten times": [
    ["RCPT TO:<a@b>", LATER],
    ["RCPT TO:<@a:>", NO_RECIPIENT],
    ["RCPT FROM:<a@b>", WRONG],
    ...Array.from({ length: 7 }, () => ["x", UNKNOWN] as [string, string]),
    ["NOOP", OK],
    ["x", ERRORS],
  ],
  "knows the parameters of a mail": [
    ["EHLO me", ""],
    ["MAIL FROM:<a@b> SIZE=10485761", "552 5.3.4 Mail larger than 10485760 bytes"],
    ["MAIL FROM:<a@b> BODY=8BITMIME SIZE=10485761", "552 5.3.4 Mail larger than 10485760 bytes"],
    ["MAIL FROM:<a@b> SIZE=99999999999999999999", "552 5.3.4 Mail larger than 10485760 bytes"],
    ["MAIL FROM:<a@b> AUTH=SMTPUTF8+SIZE=99999999", "250 2.1.0 Ok"],
    ["RCPT TO:<\xc3\xa9@b>", "553 5.6.7 The address needs SMTPUTF8"],
    ["RSET", OK],
    ["MAIL FROM:<a@b> SIZE=x", "555 5.5.4 Unknown parameter"],
    ["MAIL FROM:<a@b> BODY=BINARYMIME", "555 5.5.4 Unknown parameter"],
    ["MAIL FROM:<a@b> RET=HDRS", "555 5.5.4 Unknown parameter"],
    ["MAIL FROM:<\xc3\xa9@b>", "553 5.6.7 The address needs SMTPUTF8"],
    ["MAIL FROM:<a@b> SIZE=10485760 BODY=8BITMIME AUTH=<>", "250 2.1.0 Ok"],
    ["RCPT TO:<a@b> NOTIFY=NEVER", "555 5.5.4 Unknown parameter"],
    ["RCPT TO:<\xc3\xa9@b>", "553 5.6.7 The address needs SMTPUTF8"],
  ],
  "lets the user log in with PLAIN": [
    ["EHLO me", ""],
    ["AUTH", WRONG],
    ["AUTH CRAM-MD5", "504 5.5.4 Unknown mechanism"],
    ["AUTH PLAIN AHVzZXIAcGFzcw== x", WRONG],
    ["AUTH PLAIN =", "535 5.7.8 Wrong user or password"],
    ["AUTH PLAIN AHVzZXIAcGFzcw", "501 5.5.2 Not base64, or too long"],
    ["AUTH PLAIN AHVzZXIAcGFzc\xc3\xa9==", "501 5.5.2 Not base64, or too long"],
    ["AUTH PLAIN AHVzZXIAYmFk", "535 5.7.8 Wrong user or password"],
    ["auth plain\r\nAHVzZXIAcGFzcw==", "334 \r\n235 2.7.0 Welcome"],
    ["AUTH PLAIN AHVzZXIAcGFzcw==", "503 5.5.1 Not now"],
  ],
  "lets the user log in with PLAIN at once": [
    ["EHLO me", ""],
    [`AUTH PLAIN ${btoa("eve\0user\0pass")}`, "535 5.7.8 Wrong user or password"],
    [`AUTH PLAIN ${btoa("user\0user\0pass")}`, "235 2.7.0 Welcome"],
  ],
  "lets the user log in with LOGIN": [
    ["EHLO me", ""],
    ["AUTH LOGIN\r\n*", "334 VXNlcm5hbWU6\r\n501 5.7.0 Cancelled"],
    ["AUTH LOGIN dXNlcg==\r\nYmFk", "334 UGFzc3dvcmQ6\r\n535 5.7.8 Wrong user or password"],
    [`AUTH LOGIN dXNlcg==\r\n${"A".repeat(2000)}`, "334 UGFzc3dvcmQ6\r\n501 5.5.2 Not base64, or too long"],
    ["AUTH LOGIN\r\ndXNlcg==\r\ncGFzcw==", "334 VXNlcm5hbWU6\r\n334 UGFzc3dvcmQ6\r\n235 2.7.0 Welcome"],
  ],
};

for (const [what, talk] of Object.entries(TALKS)) {
  test(`smtp ${what}`, async () => {
    await using t = new MailServer();
    // The reply to EHLO is tested once.
    const expected = talk.map(([, reply]) => `${reply || EHLO}\r\n`).join("");
    assertEquals(await t.send(talk.map(([command]) => `${command}\r\n`).join("")), expected);
  });
}

test("smtp runs no command that the end of input has cut off", async () => {
  await using t = new MailServer();
  assertEquals(await t.send("NOOP\r\nQUIT"), `${OK}\r\n`);
  assertEquals(await t.send("EHLO me\r\nAUTH PLAIN\r\nAHVzZXIAcGFzcw=="), `${EHLO}\r\n334 \r\n501 5.7.0 Cancelled\r\n`);
});
