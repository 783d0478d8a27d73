/** Runs on the streams of `node:tls` the tests that other files run on engines. */
import "../kit/on_streams.ts";
import "../client/connect_tls_test.ts";
import "../ops/tls_broken_test.ts";
import "../ops/tls_client_ca_test.ts";
import "../ops/tls_client_openssl_test.ts";
import "../ops/tls_client_test.ts";
import "../ops/tls_credentials_test.ts";
import "../ops/tls_cut_test.ts";
import "../ops/tls_faults_test.ts";
import "../ops/tls_handle_test.ts";
import "../ops/tls_handshake_test.ts";
import "../ops/tls_hook_test.ts";
import "../ops/tls_openssl_test.ts";
import "../ops/tls_peer_test.ts";
import "../ops/tls_reload_test.ts";
import "../ops/tls_resumption_test.ts";
import "../ops/tls_test.ts";
