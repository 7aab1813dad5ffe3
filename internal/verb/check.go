package verb

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Check says what is wrong with the body of a request: it is no JSON object, something
// in it is no argument of the verb's, is of another kind, or is missing. An empty body
// is an empty object.
func (v Verb) Check(body []byte) error {
	given := map[string]json.RawMessage{}
	d := json.NewDecoder(bytes.NewReader(body))
	if err := d.Decode(&given); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: what was sent is no JSON object: %w", v.Name, err)
	}
	if d.More() {
		return fmt.Errorf("%s: there is more behind the JSON object", v.Name)
	}
	for name, value := range given {
		i := slices.IndexFunc(v.Arguments, func(a Argument) bool { return a.Name == name })
		if i < 0 {
			return fmt.Errorf("%s takes no %q; %s", v.Name, name, v.takes())
		}
		if why := v.Arguments[i].wrong(value); why != "" {
			return fmt.Errorf("%s: %s %s", v.Name, name, why)
		}
	}
	for _, a := range v.Arguments {
		if value, there := given[a.Name]; a.Needed && (!there || slices.Contains([]string{"null", `""`, "[]"}, string(value))) {
			return fmt.Errorf("%s: %s is missing", v.Name, a.Name)
		}
	}
	return nil
}

// takes says what it does take.
func (v Verb) takes() string {
	if len(v.Arguments) == 0 {
		return "it takes nothing"
	}
	var names []string
	for _, a := range v.Arguments {
		names = append(names, a.Name)
	}
	return "it takes " + strings.Join(names, ", ")
}

// wrong says what is wrong with a value; "" when nothing is. null is as good as nothing.
func (a Argument) wrong(value json.RawMessage) string {
	if string(value) == "null" {
		return ""
	}
	var text string
	into := map[Kind]any{Text: &text, Flag: new(bool), Number: new(float64), List: new([]string), Object: new(map[string]any)}[a.Is]
	if json.Unmarshal(value, into) != nil {
		return fmt.Sprintf("must be %s, not %.40s", a.Is, value)
	}
	if a.Of != nil && !slices.Contains(a.Of, text) {
		return fmt.Sprintf("is %q; it must be one of %s", text, strings.Join(slices.DeleteFunc(slices.Clone(a.Of), func(s string) bool { return s == "" }), ", "))
	}
	return ""
}
