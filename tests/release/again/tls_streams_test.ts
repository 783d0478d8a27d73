/** Runs on the streams of `node:tls` the tests that other files run on engines. */
import "../../kit/again/on_streams.ts";
import "../../client/connect_tls_test.ts";
import "../../ops/tls/engine/tls_broken_test.ts";
import "../../ops/tls/peer/tls_client_ca_test.ts";
import "../../ops/tls/peer/tls_client_openssl_test.ts";
import "../../ops/tls/peer/tls_client_test.ts";
import "../../ops/tls/tls_credentials_test.ts";
import "../../ops/tls/tls_cut_test.ts";
import "../../ops/tls/engine/tls_faults_test.ts";
import "../../ops/tls/tls_handle_test.ts";
import "../../ops/tls/tls_handshake_test.ts";
import "../../ops/tls/tls_hook_test.ts";
import "../../ops/tls/tls_openssl_test.ts";
import "../../ops/tls/peer/tls_peer_test.ts";
import "../../ops/tls/tls_reload_test.ts";
import "../../ops/tls/tls_resumption_test.ts";
import "../../ops/tls/tls_test.ts";
