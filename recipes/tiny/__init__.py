"""The tiny families: three from-scratch architectures, one teacher each and 17 students in all."""
