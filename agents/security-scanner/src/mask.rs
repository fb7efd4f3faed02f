//! Blanks out what is not code: comments wholly, and what stands within quotes. Offsets and
//! lines stay as they are. It is a lexer that errs on the safe side of plain code, not a
//! parser, and must not fail on any text.

/// A language whose code is told from comments and texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// JavaScript and TypeScript.
    Script,
    /// Python.
    Python,
    /// Rust.
    Rust,
}

impl Language {
    /// The language of a file, by the ending of its name.
    pub fn of(path: &str) -> Option<Self> {
        let (_, ending) = path.rsplit_once('.')?;
        match ending {
            "ts" | "mts" | "cts" | "js" | "mjs" | "cjs" | "jsx" | "tsx" => Some(Self::Script),
            "py" | "pyi" => Some(Self::Python),
            "rs" => Some(Self::Rust),
            _ => None,
        }
    }
}

/// The text with comments and the insides of quotes blanked.
pub fn mask(language: Language, text: &str) -> String {
    let mut lexer = Lexer {
        language,
        input: text.as_bytes(),
        output: text.as_bytes().to_vec(),
        at: 0,
        templates: Vec::new(),
        significant: b'\n',
    };
    while lexer.at < lexer.input.len() {
        lexer.step();
    }
    // Only whole characters are blanked, since every delimiter is one byte long.
    String::from_utf8(lexer.output).unwrap_or_else(|_| text.to_owned())
}

struct Lexer<'a> {
    language: Language,
    input: &'a [u8],
    output: Vec<u8>,
    at: usize,
    // Per open `${`, how many braces are open within it.
    templates: Vec<u32>,
    // The last byte of code that is not blank.
    significant: u8,
}

impl Lexer<'_> {
    fn step(&mut self) {
        let rest = &self.input[self.at..];
        match self.language {
            Language::Script => match rest {
                [b'/', b'/', ..] => self.blank_line(),
                [b'/', b'*', ..] => self.blank_comment(false),
                [b'/', ..] if self.begins_pattern() => self.pattern(),
                [quote @ (b'"' | b'\''), ..] => self.quoted(*quote, true),
                [b'`', ..] => self.template(),
                [b'{' | b'}', ..] if !self.templates.is_empty() => self.brace(),
                _ => self.code(),
            },
            Language::Python => match rest {
                [b'#', ..] => self.blank_line(),
                [b'"', b'"', b'"', ..] => self.fenced(b"\"\"\"", true),
                [b'\'', b'\'', b'\'', ..] => self.fenced(b"'''", true),
                [quote @ (b'"' | b'\''), ..] => self.quoted(*quote, true),
                _ => self.code(),
            },
            Language::Rust => match rest {
                [b'/', b'/', ..] => self.blank_line(),
                [b'/', b'*', ..] => self.blank_comment(true),
                [b'r', b'"' | b'#', ..] if !is_word(self.significant_before()) => self.raw(),
                [b'"', ..] => self.quoted(b'"', false),
                [b'\'', ..] => self.character(),
                _ => self.code(),
            },
        }
    }

    fn code(&mut self) {
        let byte = self.input[self.at];
        if !byte.is_ascii_whitespace() {
            self.significant = byte;
        }
        self.at += 1;
    }

    fn significant_before(&self) -> u8 {
        let before = self.at.checked_sub(1).map(|index| self.input[index]);
        match before {
            // `br"..."` is a text too.
            Some(b'b') => b' ',
            Some(byte) => byte,
            None => b' ',
        }
    }

    fn blank(&mut self) {
        let byte = &mut self.output[self.at];
        if *byte != b'\n' && *byte != b'\r' {
            *byte = b' ';
        }
        self.at += 1;
    }

    fn blank_line(&mut self) {
        while self.at < self.input.len() && self.input[self.at] != b'\n' {
            self.blank();
        }
    }

    fn blank_comment(&mut self, nests: bool) {
        let mut depth = 0;
        while self.at < self.input.len() {
            match &self.input[self.at..] {
                [b'/', b'*', ..] if nests || depth == 0 => {
                    depth += 1;
                    self.blank();
                    self.blank();
                }
                [b'*', b'/', ..] => {
                    depth -= 1;
                    self.blank();
                    self.blank();
                    if depth == 0 {
                        return;
                    }
                }
                _ => self.blank(),
            }
        }
    }

    fn quoted(&mut self, quote: u8, ends_with_line: bool) {
        self.significant = quote;
        self.at += 1;
        while self.at < self.input.len() {
            match self.input[self.at] {
                b'\\' if self.at + 1 < self.input.len() => {
                    self.blank();
                    self.blank();
                }
                b'\n' if ends_with_line => return,
                byte if byte == quote => {
                    self.at += 1;
                    return;
                }
                _ => self.blank(),
            }
        }
    }

    fn fenced(&mut self, fence: &[u8], escapes: bool) {
        self.at += fence.len();
        while self.at < self.input.len() {
            if self.input[self.at..].starts_with(fence) {
                self.at += fence.len();
                self.significant = b'"';
                return;
            }
            if escapes && self.input[self.at] == b'\\' && self.at + 1 < self.input.len() {
                self.blank();
            }
            self.blank();
        }
    }

    fn raw(&mut self) {
        let hashes = self.input[self.at + 1..].iter().take_while(|byte| **byte == b'#').count();
        let quote = self.at + 1 + hashes;
        if self.input.get(quote) != Some(&b'"') {
            // A raw identifier.
            self.code();
            return;
        }
        let fence: Vec<u8> =
            std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
        self.at = quote + 1 - fence.len();
        self.fenced(&fence, false);
    }

    /// A character, unless the quote begins a lifetime.
    fn character(&mut self) {
        let rest = &self.input[self.at + 1..];
        let is_character = match rest {
            [b'\\', ..] => true,
            // At most four bytes make one character.
            _ => rest.iter().take(5).skip(1).any(|byte| *byte == b'\''),
        };
        let is_lifetime = rest.first().is_some_and(|byte| is_word(*byte))
            && rest.get(1) != Some(&b'\'')
            && rest.first().is_some_and(u8::is_ascii);
        if is_character && !is_lifetime {
            self.quoted(b'\'', true);
        } else {
            self.code();
        }
    }

    fn template(&mut self) {
        self.at += 1;
        self.template_rest();
    }

    fn template_rest(&mut self) {
        while self.at < self.input.len() {
            match &self.input[self.at..] {
                [b'\\', _, ..] => {
                    self.blank();
                    self.blank();
                }
                [b'`', ..] => {
                    self.significant = b'`';
                    self.at += 1;
                    return;
                }
                [b'$', b'{', ..] => {
                    self.significant = b'{';
                    self.at += 2;
                    self.templates.push(0);
                    return;
                }
                _ => self.blank(),
            }
        }
    }

    fn brace(&mut self) {
        let opens = self.input[self.at] == b'{';
        let closes_template = match self.templates.last_mut() {
            Some(depth) if opens => {
                *depth += 1;
                false
            }
            Some(0) => true,
            Some(depth) => {
                *depth -= 1;
                false
            }
            None => false,
        };
        self.code();
        if closes_template {
            self.templates.pop();
            self.template_rest();
        }
    }

    /// Whether a slash begins a regular expression and is no division.
    fn begins_pattern(&self) -> bool {
        if b"(,=:[!&|?{};+\n".contains(&self.significant) {
            return true;
        }
        let before = self.output[..self.at].trim_ascii_end();
        before.ends_with(b"return") || before.ends_with(b"typeof")
    }

    fn pattern(&mut self) {
        self.at += 1;
        let mut in_class = false;
        while self.at < self.input.len() {
            match self.input[self.at] {
                b'\n' => return,
                b'\\' if self.at + 1 < self.input.len() => self.blank(),
                b'[' => in_class = true,
                b']' => in_class = false,
                b'/' if !in_class => {
                    self.significant = b'/';
                    self.at += 1;
                    return;
                }
                _ => {}
            }
            self.blank();
        }
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(language: Language, text: &str, expect: &str) {
        assert_eq!(mask(language, text), expect);
    }

    #[test]
    fn script() {
        use Language::Script;
        check(Script, "a // eval(\nb /* eval(\n */ c", "a         \nb         \n    c");
        check(Script, r#"f("a\"b", 'c')"#, r#"f("    ", ' ')"#);
        check(Script, "f(`a ${b({c: `d`})} e`)", "f(`  ${b({c: ` `})}  `)");
        check(Script, "x = /[/\"]/.test(y); 1 / 2 / 3", "x = /    /.test(y); 1 / 2 / 3");
        check(Script, "return /'/; // a", "return / /;     ");
        check(Script, "'open\nnext()", "'    \nnext()");
    }

    #[test]
    fn python() {
        use Language::Python;
        check(Python, "a # eval(\n", "a        \n");
        check(Python, "'''a\n'b''' c('#')", "''' \n  ''' c(' ')");
        check(Python, "r'\\' + x", "r'      ");
    }

    #[test]
    fn rust() {
        use Language::Rust;
        check(Rust, "/* a /* b */ c */ d", "                  d");
        check(Rust, r##"r#"a"b"# c"##, r##"r#"   "# c"##);
        check(
            Rust,
            "fn a<'x>(b: &'x str) { '\\'' 'é' '\"' }",
            "fn a<'x>(b: &'x str) { '  ' '  ' ' ' }",
        );
        check(Rust, "r#type + bar\"x\"", "r#type + bar\" \"");
    }

    #[test]
    fn any_text_keeps_its_length_and_lines() {
        for language in [Language::Script, Language::Python, Language::Rust] {
            for text in ["'", "\"\\", "`${", "/*", "'''é\\", "r#\"é", "/[", "}\u{fffd}'é", "b'"]
            {
                let masked = mask(language, text);
                assert_eq!(masked.len(), text.len(), "{language:?} {text}");
            }
        }
    }
}
