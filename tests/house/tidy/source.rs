//! One file of the repository as the rules see it: its text, its tokens with their lines, its
//! functions, and which of its lines are tests.
//!
//! In: a path and a text. Out: a [`Source`]. Comments and strings are no tokens, so that a rule
//! about code is never broken by prose.

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// Where a rule is broken, and how.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Breach {
    /// Path from the root of the repository.
    pub(crate) path: String,
    /// Counted from 1.
    pub(crate) line: usize,
    /// What is wrong and what to do.
    pub(crate) what: String,
}

/// One word or sign of Rust.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    /// As written; brackets are tokens too, and every literal is `"`.
    pub(crate) text: String,
    /// Counted from 1.
    pub(crate) line: usize,
}

/// A function, method or default method of a trait.
#[derive(Debug)]
pub(crate) struct Function {
    /// Its name.
    pub(crate) name: String,
    /// The line of `fn`.
    pub(crate) line: usize,
    /// From `fn` to the closing brace, both included.
    pub(crate) lines_count: usize,
}

/// A module or type with the line of its name.
#[derive(Debug)]
pub(crate) struct Named {
    /// Its name.
    pub(crate) name: String,
    /// Counted from 1.
    pub(crate) line: usize,
}

/// A path such as `crate::protocol::ids`, from code or from a `use` with its braces opened.
#[derive(Debug)]
pub(crate) struct CodePath {
    /// The names between the `::`.
    pub(crate) segments: Vec<String>,
    /// Counted from 1.
    pub(crate) line: usize,
}

/// A Rust file, read.
#[derive(Debug)]
pub(crate) struct Source {
    /// Path from the root of the repository, with `/`.
    pub(crate) path: String,
    /// All of it.
    pub(crate) text: String,
    /// Code outside tests.
    pub(crate) tokens: Vec<Token>,
    /// Functions, those of tests included.
    pub(crate) functions: Vec<Function>,
    /// Modules and types, those of tests included.
    pub(crate) names: Vec<Named>,
    /// Modules that are only compiled for tests and live in a file of their own.
    pub(crate) test_modules: Vec<String>,
}

impl Source {
    /// Reads a Rust file.
    pub(crate) fn read(path: &str, text: &str) -> Result<Self, Breach> {
        let file = syn::parse_file(text).map_err(|error| Breach {
            path: path.into(),
            line: error.span().start().line,
            what: format!("is not Rust: {error}"),
        })?;
        let mut outline = Outline::default();
        outline.visit_file(&file);
        let mut tokens = Vec::new();
        let stream = text.parse().expect("what parses as a file has tokens");
        flatten(stream, &mut tokens);
        tokens.retain(|token| !outline.tests.iter().any(|test| test.contains(&token.line)));
        Ok(Self {
            path: path.into(),
            text: text.into(),
            tokens,
            functions: outline.functions,
            names: outline.names,
            test_modules: outline.test_modules,
        })
    }

    /// A breach of this file.
    pub(crate) fn breach(&self, line: usize, what: impl Into<String>) -> Breach {
        Breach {
            path: self.path.clone(),
            line,
            what: what.into(),
        }
    }

    /// The module that the file is, from the crate's root: `src/broker/redis.rs` is
    /// `[broker, redis]`, `src/lib.rs` is empty.
    pub(crate) fn module(&self) -> Vec<&str> {
        let inside = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let mut parts: Vec<_> = inside.trim_end_matches(".rs").split('/').collect();
        if matches!(parts.last(), Some(&"mod" | &"lib")) {
            parts.pop();
        }
        parts
    }

    /// Every path in code outside tests.
    pub(crate) fn code_paths(&self) -> Vec<CodePath> {
        let mut found = Vec::new();
        let mut at = 0;
        while at < self.tokens.len() {
            at = collect_path(&self.tokens, at, &[], &mut found).max(at + 1);
        }
        found
    }
}

/// What a walk over the syntax tree remembers.
#[derive(Default)]
struct Outline {
    functions: Vec<Function>,
    names: Vec<Named>,
    tests: Vec<std::ops::RangeInclusive<usize>>,
    test_modules: Vec<String>,
}

impl Outline {
    fn name(&mut self, ident: &syn::Ident) {
        self.names.push(Named {
            name: ident.to_string(),
            line: ident.span().start().line,
        });
    }

    fn function(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let line = signature.span().start().line;
        self.functions.push(Function {
            name: signature.ident.to_string(),
            line,
            lines_count: block.span().end().line + 1 - line,
        });
    }

    fn test(&mut self, attributes: &[syn::Attribute], span: proc_macro2::Span) {
        if attributes.iter().any(is_test_attribute) {
            self.tests.push(span.start().line..=span.end().line);
        }
    }
}

fn is_test_attribute(attribute: &syn::Attribute) -> bool {
    if attribute.path().is_ident("test") {
        return true;
    }
    let syn::Meta::List(list) = &attribute.meta else {
        return false;
    };
    let mut words = Vec::new();
    flatten(list.tokens.clone(), &mut words);
    attribute.path().is_ident("cfg")
        && words.iter().any(|word| word.text == "test")
        && words.iter().all(|word| word.text != "not")
}

impl<'ast> Visit<'ast> for Outline {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        match item {
            syn::Item::Struct(item) => self.name(&item.ident),
            syn::Item::Enum(item) => self.name(&item.ident),
            syn::Item::Union(item) => self.name(&item.ident),
            syn::Item::Trait(item) => self.name(&item.ident),
            syn::Item::Type(item) => self.name(&item.ident),
            _ => {}
        }
        visit::visit_item(self, item);
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        self.name(&module.ident);
        self.test(&module.attrs, module.span());
        if module.content.is_none() && module.attrs.iter().any(is_test_attribute) {
            self.test_modules.push(module.ident.to_string());
        }
        visit::visit_item_mod(self, module);
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.test(&function.attrs, function.span());
        self.function(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        self.test(&item.attrs, item.span());
        visit::visit_item_impl(self, item);
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.test(&item.attrs, item.span());
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.test(&function.attrs, function.span());
        self.function(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(block) = &function.default {
            self.function(&function.sig, block);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

/// Tokens in the order of the text, groups opened, `::` as one token, literals as `"`.
fn flatten(stream: TokenStream, out: &mut Vec<Token>) {
    let mut after_joint_colon = false;
    for tree in stream {
        let line = tree.span().start().line;
        let mut push = |text: &str, line: usize| {
            out.push(Token {
                text: text.into(),
                line,
            });
        };
        match tree {
            TokenTree::Ident(ident) => push(&ident.to_string(), line),
            TokenTree::Literal(_) => push("\"", line),
            TokenTree::Punct(punct) => {
                if punct.as_char() == ':' && after_joint_colon {
                    out.pop();
                    out.push(Token {
                        text: "::".into(),
                        line,
                    });
                    after_joint_colon = false;
                } else {
                    push(&punct.as_char().to_string(), line);
                    after_joint_colon = punct.as_char() == ':' && punct.spacing() == Spacing::Joint;
                }
            }
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                push(open, line);
                flatten(group.stream(), out);
                out.push(Token {
                    text: close.into(),
                    line: group.span_close().start().line,
                });
            }
        }
    }
}

/// Reads the path that begins at `at`, if one does, and returns where reading goes on.
fn collect_path(
    tokens: &[Token],
    at: usize,
    prefix: &[String],
    found: &mut Vec<CodePath>,
) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let is_name = |at: usize| text(at).starts_with(|c: char| c.is_alphabetic() || c == '_');
    if !is_name(at) {
        return at + 1;
    }
    let mut segments = prefix.to_vec();
    segments.push(text(at).to_owned());
    let mut next = at + 1;
    while text(next) == "::" {
        if is_name(next + 1) || text(next + 1) == "*" {
            segments.push(text(next + 1).to_owned());
            next += 2;
        } else if text(next + 1) == "{" {
            next += 2;
            while next < tokens.len() && text(next) != "}" {
                next = collect_path(tokens, next, &segments, found);
                if text(next) == "as" {
                    next += 2;
                }
            }
            return next + 1;
        } else {
            break;
        }
    }
    if segments.len() > 1 {
        found.push(CodePath {
            segments,
            line: tokens[at].line,
        });
    }
    next
}
