"""The REST transport: Pinecone spelling in, Pinecone spelling out."""
