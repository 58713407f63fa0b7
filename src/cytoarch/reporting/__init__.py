"""What a person looks at: pictures of every section, charts, and one page per brain."""
