//! Finds calls that are often exploited. It looks at code alone, never at comments or texts,
//! and must not claim more than that a person should look.

use std::sync::LazyLock;

use regex::Regex;

use crate::finding::{Finding, Severity, line_at};
use crate::limits;
use crate::mask::{Language, mask};

/// What a call looks like, and when it is dangerous.
struct Rule {
    name: &'static str,
    language: Language,
    /// Matches masked code. When it ends with a bracket, the arguments follow.
    pattern: &'static str,
    judge: fn(&Call<'_>) -> Option<Severity>,
    message: &'static str,
}

/// The arguments of a call.
struct Call<'a> {
    /// With the insides of quotes blanked.
    code: &'a str,
    /// As they stand in the file.
    raw: &'a str,
}

impl Call<'_> {
    /// Whether anything but one text decides what the first argument is.
    fn is_dynamic(&self) -> bool {
        let first = self.code.trim_start();
        let Some(quote) = first.chars().next() else {
            return false;
        };
        if !matches!(quote, '"' | '\'' | '`') || first.contains("${") {
            return true;
        }
        let after = first[1..].find(quote).map(|end| first[end + 2..].trim_start());
        !after.is_some_and(|rest| rest.is_empty() || rest.starts_with(','))
    }

    fn has(&self, word: &str) -> bool {
        let blanks = |text: &str| -> String { text.split_whitespace().collect() };
        blanks(self.code).contains(word)
    }
}

fn high(_: &Call<'_>) -> Option<Severity> {
    Some(Severity::High)
}

fn medium(_: &Call<'_>) -> Option<Severity> {
    Some(Severity::Medium)
}

fn high_if_dynamic(call: &Call<'_>) -> Option<Severity> {
    Some(if call.is_dynamic() { Severity::High } else { Severity::Medium })
}

fn medium_if_dynamic(call: &Call<'_>) -> Option<Severity> {
    call.is_dynamic().then_some(Severity::Medium)
}

fn weak_hash(call: &Call<'_>) -> Option<Severity> {
    let name = call.raw.to_ascii_lowercase();
    (name.contains("md5") || name.contains("sha1")).then_some(Severity::Low)
}

const SHELL: &str = "a shell runs it: give the program and its arguments apart";
const CODE: &str = "text runs as code: parse the data instead";
const CERTIFICATE: &str = "certificates are not checked: anyone in between can listen";
const PICKLE: &str = "unpickling runs code of whoever made the data: use JSON";

static RULES: &[Rule] = &[
    Rule {
        name: "dangerous-eval",
        language: Language::Script,
        pattern: r"(?:^|[^.\w$]|\b(?:window|globalThis|global|self)\s*\.\s*)eval\s*\(",
        judge: high,
        message: CODE,
    },
    Rule {
        name: "dangerous-eval",
        language: Language::Script,
        pattern: r"\bnew\s+Function\s*\(",
        judge: high,
        message: CODE,
    },
    Rule {
        name: "dangerous-eval",
        language: Language::Script,
        pattern: r#"\bset(?:Timeout|Interval)\s*\(\s*["'`]"#,
        judge: medium,
        message: CODE,
    },
    Rule {
        name: "dangerous-eval",
        language: Language::Script,
        pattern: r"\bvm\s*\.\s*(?:runIn(?:New|This)?Context|compileFunction)\s*\(",
        judge: medium,
        message: CODE,
    },
    Rule {
        name: "dangerous-shell",
        language: Language::Script,
        pattern: concat!(
            r#"(?:^|[^.\w$]|\b(?:child_process|childProcess|cp)\s*\.\s*"#,
            r#"|require\s*\(\s*["'][^"']*["']\s*\)\s*\.\s*)exec(?:Sync)?\s*\("#
        ),
        judge: high_if_dynamic,
        message: SHELL,
    },
    Rule {
        name: "dangerous-shell",
        language: Language::Script,
        pattern: r"\b(?:spawn|execFile)(?:Sync)?\s*\(",
        judge: |call| call.has("shell:true").then_some(Severity::High),
        message: SHELL,
    },
    Rule {
        name: "dangerous-html",
        language: Language::Script,
        pattern: r#"\.(?:innerHTML|outerHTML)\s*\+?=\s*[^=\s"']"#,
        judge: medium,
        message: "text becomes HTML: set `textContent`, or clean it first",
    },
    Rule {
        name: "dangerous-html",
        language: Language::Script,
        pattern: r"\bdangerouslySetInnerHTML\b",
        judge: medium,
        message: "text becomes HTML: clean it first",
    },
    Rule {
        name: "dangerous-html",
        language: Language::Script,
        pattern: r"\bdocument\s*\.\s*writeln?\s*\(",
        judge: medium_if_dynamic,
        message: "text becomes HTML: set `textContent`, or clean it first",
    },
    Rule {
        name: "no-certificate-check",
        language: Language::Script,
        pattern: r"\brejectUnauthorized\s*:\s*false\b",
        judge: high,
        message: CERTIFICATE,
    },
    Rule {
        name: "no-certificate-check",
        language: Language::Script,
        pattern: r"\bNODE_TLS_REJECT_UNAUTHORIZED\s*=[^=]",
        judge: high,
        message: CERTIFICATE,
    },
    Rule {
        name: "weak-hash",
        language: Language::Script,
        pattern: r"\bcreateHash\s*\(",
        judge: weak_hash,
        message: "collisions are cheap to make: use SHA-256 where safety hangs on it",
    },
    Rule {
        name: "dangerous-eval",
        language: Language::Python,
        pattern: r"(?:^|[^.\w])(?:eval|exec)\s*\(",
        judge: high,
        message: CODE,
    },
    Rule {
        name: "dangerous-unpickling",
        language: Language::Python,
        pattern: concat!(
            r"\b(?:pickle|cPickle|_pickle|dill|cloudpickle|marshal)",
            r"\s*\.\s*(?:loads?|Unpickler)\s*\("
        ),
        judge: high,
        message: PICKLE,
    },
    Rule {
        name: "dangerous-unpickling",
        language: Language::Python,
        pattern: r"\bshelve\s*\.\s*open\s*\(",
        judge: medium,
        message: PICKLE,
    },
    Rule {
        name: "dangerous-yaml",
        language: Language::Python,
        pattern: r"\byaml\s*\.\s*load(?:_all)?\s*\(",
        judge: |call| {
            let safe = ["SafeLoader", "BaseLoader"];
            let is_safe = safe.iter().any(|loader| call.has(loader));
            (!is_safe).then_some(Severity::High)
        },
        message: "tags make objects of any class: use `yaml.safe_load`",
    },
    Rule {
        name: "dangerous-yaml",
        language: Language::Python,
        pattern: r"\byaml\s*\.\s*unsafe_load(?:_all)?\s*\(",
        judge: high,
        message: "tags make objects of any class: use `yaml.safe_load`",
    },
    Rule {
        name: "dangerous-shell",
        language: Language::Python,
        pattern: r"\b(?:run|call|Popen|check_output|check_call|getoutput|getstatusoutput)\s*\(",
        judge: |call| call.has("shell=True").then_some(Severity::High),
        message: SHELL,
    },
    Rule {
        name: "dangerous-shell",
        language: Language::Python,
        pattern: r"\bos\s*\.\s*(?:system|popen)\s*\(",
        judge: high_if_dynamic,
        message: SHELL,
    },
    Rule {
        name: "no-certificate-check",
        language: Language::Python,
        pattern: r"\b(?:requests|httpx|session|client)\s*\.\s*\w+\s*\(",
        judge: |call| call.has("verify=False").then_some(Severity::High),
        message: CERTIFICATE,
    },
    Rule {
        name: "no-certificate-check",
        language: Language::Python,
        pattern: r"\b_create_unverified_context\b",
        judge: high,
        message: CERTIFICATE,
    },
    Rule {
        name: "debug-server",
        language: Language::Python,
        pattern: r"\.\s*run\s*\(",
        judge: |call| call.has("debug=True").then_some(Severity::Medium),
        message: "the debugger lets visitors run code: take `debug` from the environment",
    },
    Rule {
        name: "racy-temporary-file",
        language: Language::Python,
        pattern: r"\btempfile\s*\.\s*mktemp\s*\(",
        judge: medium,
        message: "another program can take the name first: use `mkstemp`",
    },
    Rule {
        name: "weak-hash",
        language: Language::Python,
        pattern: r"\bhashlib\s*\.\s*(?:md5|sha1)\s*\(",
        judge: |_| Some(Severity::Low),
        message: "collisions are cheap to make: use SHA-256 where safety hangs on it",
    },
    Rule {
        name: "unsafe-code",
        language: Language::Rust,
        pattern: r"\bunsafe\s*(?:\{|fn\b|impl\b|extern\b|trait\b)",
        judge: medium,
        message: "the compiler does not check memory here: say why it holds, or do without",
    },
    Rule {
        name: "unsafe-code",
        language: Language::Rust,
        pattern: r"\btransmute\s*(?:::\s*<|\()",
        judge: medium,
        message: "types are passed over: convert instead",
    },
    Rule {
        name: "dangerous-shell",
        language: Language::Rust,
        pattern: r"\bCommand\s*::\s*new\s*\(",
        judge: |call| {
            let program = call.raw.trim().trim_matches('"').rsplit('/').next();
            let shells = ["sh", "bash", "zsh", "dash", "cmd", "cmd.exe", "powershell"];
            let is_shell = program.is_some_and(|name| shells.contains(&name));
            is_shell.then_some(Severity::Medium)
        },
        message: SHELL,
    },
    Rule {
        name: "no-certificate-check",
        language: Language::Rust,
        pattern: r"\bdanger_accept_invalid_(?:certs|hostnames)\s*\(\s*true\b",
        judge: high,
        message: CERTIFICATE,
    },
];

static PATTERNS: LazyLock<Vec<(&'static Rule, Regex)>> = LazyLock::new(|| {
    let compile = |rule: &'static Rule| {
        let pattern = format!("(?m){}", rule.pattern);
        let regex = Regex::new(&pattern).expect("a test compiles every pattern");
        (rule, regex)
    };
    RULES.iter().map(compile).collect()
});

/// The dangerous calls in a file.
pub fn scan(path: &str, language: Language, text: &str) -> Vec<Finding> {
    let code = mask(language, text);
    let mut findings: Vec<Finding> = Vec::new();
    for (rule, pattern) in PATTERNS.iter() {
        if rule.language != language {
            continue;
        }
        for found in pattern.find_iter(&code) {
            let arguments = arguments(&code, found.end());
            let call = Call {
                code: &code[arguments.clone()],
                raw: text.get(arguments).unwrap_or_default(),
            };
            let Some(severity) = (rule.judge)(&call) else {
                continue;
            };
            // The match may begin with the end of the line before.
            let start = found.start() + leading_blanks(found.as_str());
            findings.push(Finding {
                rule: rule.name,
                severity,
                file: path.to_owned(),
                line: line_at(&code, start),
                message: rule.message.to_owned(),
                advisory: None,
            });
        }
    }
    findings
}

fn leading_blanks(text: &str) -> usize {
    text.len() - text.trim_start().len()
}

/// What stands between an opening bracket that ends at `start` and its partner.
fn arguments(code: &str, start: usize) -> std::ops::Range<usize> {
    if !code[..start].ends_with('(') {
        return start..start;
    }
    let mut depth = 1;
    let bytes = &code.as_bytes()[start..];
    for (offset, byte) in bytes.iter().enumerate().take(limits::ARGUMENT_BYTES_MAX) {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return start..start + offset;
        }
    }
    let mut end = start + bytes.len().min(limits::ARGUMENT_BYTES_MAX);
    while !code.is_char_boundary(end) {
        end -= 1;
    }
    start..end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, text: &str, expect: &[(&str, Severity, u32)]) {
        let language = Language::of(path).expect("a language");
        let findings = scan(path, language, text);
        let found: Vec<_> =
            findings.iter().map(|finding| (finding.rule, finding.severity, finding.line)).collect();
        assert_eq!(found, expect, "{text}");
    }

    #[test]
    fn scripts() {
        use Severity::{High, Low, Medium};
        check("a.js", "let x;\neval(x)", &[("dangerous-eval", High, 2)]);
        check("a.js", "globalThis.eval(x)", &[("dangerous-eval", High, 1)]);
        check("a.ts", "new Function('a', b)", &[("dangerous-eval", High, 1)]);
        check("a.ts", "setTimeout('go()', 1)", &[("dangerous-eval", Medium, 1)]);
        check("a.ts", "exec(`rm ${x}`)", &[("dangerous-shell", High, 1)]);
        check("a.ts", "cp.execSync('ls', {})", &[("dangerous-shell", Medium, 1)]);
        check("a.ts", "exec('ls ' + x)", &[("dangerous-shell", High, 1)]);
        let required = "require('child_process').exec(x)";
        check("a.js", required, &[("dangerous-shell", High, 1)]);
        let spawned = "spawn('ls', [x], {\n  shell: true,\n})";
        check("a.ts", spawned, &[("dangerous-shell", High, 1)]);
        check("a.ts", "e.innerHTML = x", &[("dangerous-html", Medium, 1)]);
        let tls = "({ rejectUnauthorized: false })";
        check("a.ts", tls, &[("no-certificate-check", High, 1)]);
        check("a.ts", "createHash('md5')", &[("weak-hash", Low, 1)]);
    }

    #[test]
    fn python() {
        use Severity::{High, Low, Medium};
        check("a.py", "x = eval(y)", &[("dangerous-eval", High, 1)]);
        check("a.py", "pickle.loads(x)", &[("dangerous-unpickling", High, 1)]);
        check("a.py", "yaml.load(x)", &[("dangerous-yaml", High, 1)]);
        let shell = "subprocess.run(\n    x,\n    shell = True,\n)";
        check("a.py", shell, &[("dangerous-shell", High, 1)]);
        check("a.py", "os.system('ls')", &[("dangerous-shell", Medium, 1)]);
        check("a.py", "os.system(f'ls {x}')", &[("dangerous-shell", High, 1)]);
        check("a.py", "app.run(debug=True)", &[("debug-server", Medium, 1)]);
        check("a.py", "hashlib.md5(x)", &[("weak-hash", Low, 1)]);
        let get = "requests.get(url, verify=False)";
        check("a.py", get, &[("no-certificate-check", High, 1)]);
    }

    #[test]
    fn rust() {
        use Severity::{High, Medium};
        check("a.rs", "unsafe { x() }", &[("unsafe-code", Medium, 1)]);
        check("a.rs", "Command::new(\"/bin/sh\")", &[("dangerous-shell", Medium, 1)]);
        let certificates = "b.danger_accept_invalid_certs(true)";
        check("a.rs", certificates, &[("no-certificate-check", High, 1)]);
    }

    #[test]
    fn what_only_looks_alike_is_no_finding() {
        check("a.js", "// eval(x)\n'eval(x)'; /a/.exec(x); my.eval(x); retrieval(x)", &[]);
        check("a.ts", "spawn('ls', [x]); createHash('sha256'); e.innerHTML = ''", &[]);
        check("a.py", "ast.literal_eval(x)  # eval(x)\n\"\"\"pickle.loads(x)\"\"\"", &[]);
        check("a.py", "yaml.load(x, Loader=yaml.SafeLoader); yaml.safe_load(x)", &[]);
        check("a.py", "subprocess.run([x], shell=False); model.eval()", &[]);
        check("a.rs", "#![forbid(unsafe_code)]\n// unsafe {\nCommand::new(\"git\")", &[]);
    }

    #[test]
    fn unclosed_and_long_arguments_are_survived() {
        let text = format!("yaml.load({}", "é".repeat(limits::ARGUMENT_BYTES_MAX));
        check("a.py", &text, &[("dangerous-yaml", Severity::High, 1)]);
        check("a.py", "eval(", &[("dangerous-eval", Severity::High, 1)]);
    }
}
