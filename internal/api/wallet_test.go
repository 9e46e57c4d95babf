package api_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dunlin/internal/api"
)

// TestWalletFaultsHideSecrets: whatever is wrong with a request to the wallet, the answer does not repeat it.
func TestWalletFaultsHideSecrets(t *testing.T) {
	home := t.TempDir()
	s, err := api.New(api.Options{Listen: "127.0.0.1:0", Home: home})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.SetNode(newFakeNode(1))
	token, err := os.ReadFile(filepath.Join(home, api.CookieFile))
	if err != nil {
		t.Fatal(err)
	}
	const secret = "hunter22hunter22"
	for _, tc := range []struct{ path, body string }{
		{"/unlock", `{"passphrase": "` + secret + `"`},                      // cut off
		{"/unlock", `{"passphrase": ["` + secret + `"]}`},                   // of another type
		{"/unlock", `{"passphrase": "` + secret + `", "for_s": -5}`},        // another field is wrong
		{"/unlock", `{"passfrase": "` + secret + `"}`},                      // of another name
		{"/unlock", `"` + secret + `"`},                                     // no object
		{"", `{"words": "` + secret + `", "passphrase": 5}`},                // create
		{"/import", `{"wif": "` + secret + `", "from_height": "x"}`},        // a key
		{"/passphrase", `{"old": "` + secret + `"}`},                        // half of it
		{"/send", `{"passphrase": "` + secret + `", "outputs": []}`},        // nothing to pay
		{"/unlock", strings.Repeat(" ", 100) + secret + `{"passphrase": }`}, // no JSON
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/v1/wallet"+tc.path, strings.NewReader(tc.body))
		r.Host = "localhost"
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer "+string(token))
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		if w.Code < 400 || strings.Contains(w.Body.String(), secret) {
			t.Errorf("%s %s: %d %s", tc.path, tc.body, w.Code, w.Body)
		}
	}
}
