/**
 * Imported before a file of tests, makes TLS run on the streams of `node:tls`, as it does where the self-test of engines
 * does not pass.
 *
 * @module
 */

import { ENGINE } from "../../../ops/tls/engine/wrap.ts";
import { VARIANT } from "../bounded.ts";

ENGINE.enabled = false;
VARIANT.suffix = ", over streams";
VARIANT.all = true;
